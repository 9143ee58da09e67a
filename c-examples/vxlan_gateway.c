/* vxlan_gateway: two sites of one network, VPC 42, and the VXLAN between them. The program names addresses; the gateways find the way.
 *
 *     host A ── port 1  site A  port 2 ── 192.0.2.1 ═════ 192.0.2.2 ── port 2  site B  port 1 ── host B
 *
 * No flow is put here, and no outer header is written. The first frame from host A for everybody waits while site A asks, by ARP, who has 192.0.2.2; site B
 * answers, and the frame crosses. Host B answers, and from then on both sites have flows for the two hosts. The program is the cable: it looks at each frame
 * that crosses.
 *
 *     cc -std=c11 vxlan_gateway.c $(pkg-config --cflags --libs wye) && ./a.out
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wye.h>

enum { HOST = 1, UNDERLAY = 2, VNI = 42 };
enum { HEADROOM = 128, FRAME_MAX = 256, FRAMES_MAX = 8, INNER_LEN = 60, OUTER_HEADERS = 50 };

struct frame {
    uint32_t port;
    uint32_t len;
    uint8_t bytes[FRAME_MAX];
};

/* A switch with its worker and its gateway, and the frames that it has sent. */
struct site {
    const char *name;
    wye_datapath *datapath;
    wye_worker *worker;
    wye_gateway *gateway;
    struct frame sent[FRAMES_MAX];
    unsigned n_sent;
};

static uint64_t now_ns = 1000000000;

static void check(wye_status status, wye_error *error)
{
    if (status == WYE_OK)
        return;
    fprintf(stderr, "%s: %s\n", wye_status_name(status), wye_error_message(error));
    wye_error_free(error);
    exit(EXIT_FAILURE);
}

static size_t transmit(void *ctx, uint32_t port, struct wye_packet **packets, size_t n)
{
    struct site *site = ctx;
    for (size_t i = 0; i < n; i++) {
        assert(site->n_sent < FRAMES_MAX && packets[i]->len <= FRAME_MAX);
        struct frame *frame = &site->sent[site->n_sent++];
        frame->port = port;
        frame->len = packets[i]->len;
        memcpy(frame->bytes, packets[i]->buffer + packets[i]->data_ofs, frame->len);
    }
    return n;
}

static struct wye_address address(const char *text)
{
    struct wye_address address;
    wye_error *error = NULL;
    check(wye_address_from_text(text, &address, &error), error);
    return address;
}

/* A site with one address, whose VPC has one host here and one other end, `remote`. */
static void open_site(struct site *site, const char *local, const uint8_t mac[6], const char *remote)
{
    wye_error *error = NULL;
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    config.pool_buffers = 64;
    check(wye_datapath_new(&config, &site->datapath, &error), error);
    for (uint32_t number = HOST; number <= UNDERLAY; number++) {
        struct wye_port_config port = WYE_PORT_CONFIG_INIT;
        port.number = number;
        check(wye_port_add(site->datapath, &port, &error), error);
    }
    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    ops.transmit = transmit;
    check(wye_worker_new(site->datapath, &ops, site, &site->worker, &error), error);

    check(wye_gateway_new(site->datapath, NULL, &site->gateway, &error), error);

    /* Port 2 has an address. A prefix beyond its link would need wye_gateway_route_add. */
    struct wye_address ours = address(local);
    struct wye_interface interface = WYE_INTERFACE_INIT;
    interface.port = UNDERLAY;
    memcpy(interface.mac, mac, sizeof interface.mac);
    interface.addresses = &ours;
    interface.n_addresses = 1;
    check(wye_gateway_interface_set(site->gateway, &interface, now_ns, &error), error);

    /* VXLAN that comes to it is taken out, and belongs to the VPC of its identifier. */
    struct wye_vpc_config vpc = WYE_VPC_CONFIG_INIT;
    vpc.vni = VNI;
    check(wye_gateway_listen(site->gateway, WYE_TUNNEL_VXLAN, 0, 0, &vpc.listener, &error), error);
    check(wye_gateway_vpc_add(site->gateway, &vpc, &error), error);
    check(wye_gateway_vpc_port_add(site->gateway, VNI, HOST, 0, &error), error);
    struct wye_address other_end = address(remote);
    check(wye_gateway_vpc_remote_add(site->gateway, VNI, &other_end, now_ns, &error), error);
}

static void close_site(struct site *site)
{
    wye_gateway_free(site->gateway);
    wye_worker_free(site->worker);
    wye_datapath_free(site->datapath);
}

/* A frame comes in. */
static void receive(struct site *site, uint32_t in_port, const uint8_t *bytes, uint32_t len)
{
    uint8_t buffer[HEADROOM + FRAME_MAX] = {0};
    struct wye_packet packet = {0};
    packet.buffer = buffer;
    packet.capacity = sizeof buffer;
    packet.data_ofs = HEADROOM;
    packet.len = len;
    packet.in_port = in_port;
    memcpy(buffer + HEADROOM, bytes, len);
    struct wye_packet *list = &packet;
    check(wye_worker_process(site->worker, &list, 1, now_ns), NULL);
}

static int is_type(const struct frame *frame, unsigned type)
{
    return frame->bytes[12] == type >> 8 && frame->bytes[13] == (type & 0xff);
}

static void show(const struct site *from, const struct frame *frame)
{
    const uint8_t *b = frame->bytes;
    printf("%s, port %u: %3u bytes, ", from->name, (unsigned)frame->port, (unsigned)frame->len);
    if (is_type(frame, 0x0806) && b[21] == 2) /* the operation: 1 asks, 2 answers */
        printf("ARP: 192.0.2.%u is here\n", b[31]);
    else if (is_type(frame, 0x0806) && memcmp(b + 28, b + 38, 4) == 0) /* sender and target: a host that asks for itself announces itself */
        printf("ARP: I have 192.0.2.%u\n", b[31]);
    else if (is_type(frame, 0x0806))
        printf("ARP: who has 192.0.2.%u?\n", b[41]);
    else if (is_type(frame, 0x0800))
        printf("VXLAN from 192.0.2.%u to 192.0.2.%u, VPC %u\n", b[29], b[33], (unsigned)(b[46] << 16 | b[47] << 8 | b[48]));
    else
        printf("\"%s\"\n", (const char *)b + 14);
}

/* Carries frames from site to site until none is under way. The last one to a host is kept, and the last tunnel packet. */
static void settle(struct site sites[2], struct frame *to_host, struct frame *crossed)
{
    for (unsigned idle = 0, at = 0; idle < 2; at = !at) {
        struct site *site = &sites[at];
        /* What the gateway sends by itself waits for a worker. */
        check(wye_worker_poll(site->worker, now_ns, NULL), NULL);
        idle = site->n_sent == 0 ? idle + 1 : 0;
        for (unsigned i = 0; i < site->n_sent; i++) {
            const struct frame *frame = &site->sent[i];
            show(site, frame);
            if (frame->port == UNDERLAY)
                receive(&sites[!at], UNDERLAY, frame->bytes, frame->len);
            if (frame->port == HOST)
                *to_host = *frame;
            else if (is_type(frame, 0x0800))
                *crossed = *frame;
        }
        site->n_sent = 0;
    }
}

static unsigned sum16(const uint8_t *bytes, unsigned len)
{
    unsigned sum = 0; /* RFC 1071 */
    for (unsigned at = 0; at < len; at += 2)
        sum += (unsigned)bytes[at] << 8 | bytes[at + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

/* What crossed is VXLAN around `inner`, each byte of it. */
static void look_at_outer(const struct frame *crossed, const uint8_t *inner, const uint8_t src[6], const uint8_t dst[6], int from, int to)
{
    uint8_t expected[OUTER_HEADERS + INNER_LEN] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00,
        0x45, 0, 0, 96, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 0, 192, 0, 2, 0,
        0, 0, 4789 >> 8, 4789 & 0xff, 0, 76, 0, 0,
        0x08, 0, 0, 0, VNI >> 16, VNI >> 8 & 0xff, VNI & 0xff, 0,
    };
    memcpy(expected, dst, 6);
    memcpy(expected + 6, src, 6);
    expected[29] = from, expected[33] = to;
    unsigned checksum = ~sum16(expected + 14, 20);
    expected[24] = checksum >> 8 & 0xff, expected[25] = checksum & 0xff;
    /* The source port is a hash of the inner packet's flow, so that a network with several ways uses them (RFC 7348). */
    memcpy(expected + 34, crossed->bytes + 34, 2);
    unsigned source_port = (unsigned)expected[34] << 8 | expected[35];
    memcpy(expected + OUTER_HEADERS, inner, INNER_LEN);

    assert(source_port >= 32768 && source_port <= 60999);
    assert(crossed->len == sizeof expected && memcmp(crossed->bytes, expected, sizeof expected) == 0);
}

static void print_what_it_knows(const struct site *site)
{
    static char text[1024];
    size_t len = sizeof text;
    wye_error *error = NULL;
    check(wye_gateway_to_text(site->gateway, text, &len, &error), error);
    printf("%s knows\n%s", site->name, text);
}

int main(void)
{
    static struct site sites[2] = {{.name = "A"}, {.name = "B"}};
    static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0xa}, mac_b[6] = {2, 0, 0, 0, 0, 0xb};
    static struct frame to_host, crossed;

    open_site(&sites[0], "192.0.2.1/24", mac_a, "192.0.2.2");
    open_site(&sites[1], "192.0.2.2/24", mac_b, "192.0.2.1");

    puts("host A calls, and its frame waits until site A knows the way");
    static uint8_t call[INNER_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 1, 1, 0x88, 0xb5, 'w', 'h', 'o', '?'};
    receive(&sites[0], HOST, call, INNER_LEN);
    settle(sites, &to_host, &crossed);
    look_at_outer(&crossed, call, mac_a, mac_b, 1, 2);
    assert(to_host.len == INNER_LEN && memcmp(to_host.bytes, call, INNER_LEN) == 0);

    puts("host B answers");
    static uint8_t answer[INNER_LEN] = {2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 0x88, 0xb5, 'm', 'e'};
    receive(&sites[1], HOST, answer, INNER_LEN);
    settle(sites, &to_host, &crossed);
    look_at_outer(&crossed, answer, mac_b, mac_a, 2, 1);
    assert(to_host.len == INNER_LEN && memcmp(to_host.bytes, answer, INNER_LEN) == 0);

    /* In a program of your own: several times a second. */
    now_ns += 1000000000;
    for (int at = 0; at < 2; at++) {
        wye_error *error = NULL;
        check(wye_gateway_upkeep(sites[at].gateway, now_ns, NULL, NULL, &error), error);
        print_what_it_knows(&sites[at]);
    }
    close_site(&sites[0]);
    close_site(&sites[1]);
    return 0;
}
