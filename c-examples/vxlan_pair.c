/* vxlan_pair: a packet goes into a VXLAN tunnel in one switch and comes out of it in another.
 *
 *     station ──▶ port 1  left  port 2 ──▶ outer packet ──▶ port 2  right  port 1 ──▶ station
 *                         encap                                     tnl_pop
 *
 * Each switch has one tunnel, set by wye_tunnel_set. The left one's has a header: what `encap` puts in front of packets. The right one's has none, since
 * it only takes packets out. The program carries the outer packet from one to the other itself, and looks at each byte of it.
 *
 *     cc -std=c11 vxlan_pair.c $(pkg-config --cflags --libs wye) && ./a.out
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wye.h>

enum { STATION = 1, UNDERLAY = 2, TUNNEL = 100, VNI = 42 };
enum { HEADROOM = 128, INNER_LEN = 60, OUTER_HEADERS = 50, SOURCE_PORT = 50000 };

/* A switch with its one worker, and the last packet that it sent. */
struct site {
    wye_datapath *datapath;
    wye_worker *worker;
    uint32_t port;
    uint32_t len;
    uint8_t bytes[256];
};

static void check(wye_status status, wye_error *error)
{
    if (status == WYE_OK)
        return;
    fprintf(stderr, "%s: %s\n", wye_status_name(status), wye_error_message(error));
    wye_error_free(error);
    exit(EXIT_FAILURE);
}

/* From 192.0.2.1 to 192.0.2.2: Ethernet, IPv4, UDP, VXLAN. What is 0 here and in no packet, the library fills in: lengths, the checksum of
 * the IPv4 header, the source port. The UDP checksum stays 0, as most VXLAN tunnels have it. */
static const uint8_t outer_headers[OUTER_HEADERS] = {
    2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 0x08, 0x00,
    0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    0, 0, 4789 >> 8, 4789 & 0xff, 0, 0, 0, 0,
    0x08, 0, 0, 0, VNI >> 16, VNI >> 8 & 0xff, VNI & 0xff, 0,
};

static size_t transmit(void *ctx, uint32_t port, struct wye_packet **packets, size_t n)
{
    struct site *site = ctx;
    for (size_t i = 0; i < n; i++) {
        site->port = port;
        site->len = packets[i]->len;
        memcpy(site->bytes, packets[i]->buffer + packets[i]->data_ofs, packets[i]->len);
    }
    return n;
}

static void add_flow(wye_datapath *datapath, const char *match, const char *actions)
{
    struct wye_flow_request flow = WYE_FLOW_REQUEST_INIT;
    wye_error *error = NULL;
    flow.flags = WYE_PUT_CREATE;
    flow.match_text = match;
    flow.actions_text = actions;
    check(wye_flow_put(datapath, &flow, NULL, &error), error);
}

static void open_site(struct site *site, const struct wye_tunnel_config *tunnel)
{
    wye_error *error = NULL;
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    config.pool_buffers = 64;
    check(wye_datapath_new(&config, &site->datapath, &error), error);
    for (uint32_t number = STATION; number <= UNDERLAY; number++) {
        struct wye_port_config port = WYE_PORT_CONFIG_INIT;
        port.number = number;
        check(wye_port_add(site->datapath, &port, &error), error);
    }
    check(wye_tunnel_set(site->datapath, TUNNEL, tunnel, &error), error);

    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    ops.transmit = transmit;
    check(wye_worker_new(site->datapath, &ops, site, &site->worker, &error), error);
}

static void close_site(struct site *site)
{
    wye_worker_free(site->worker);
    wye_datapath_free(site->datapath);
}

/* A packet of these bytes comes in on `in_port` of the site's switch, and is sent. */
static void receive(struct site *site, uint32_t in_port, const uint8_t *bytes, uint32_t len)
{
    uint8_t buffer[HEADROOM + 256];
    struct wye_packet packet = {0};
    packet.buffer = buffer;
    packet.capacity = sizeof buffer;
    packet.data_ofs = HEADROOM; /* the outer headers go here: the packet itself does not move */
    packet.len = len;
    packet.in_port = in_port;
    memset(buffer, 0, sizeof buffer);
    memcpy(buffer + HEADROOM, bytes, len);

    struct wye_packet *list = &packet;
    site->len = 0;
    check(wye_worker_process(site->worker, &list, 1, 1000000000), NULL);
    assert(packet.fate == WYE_FATE_TRANSMITTED);
    printf("port %u: %u bytes\n", (unsigned)site->port, (unsigned)site->len);
}

/* What the left switch sent is `outer_headers`, filled in, and the station's packet behind it. */
static void look_at_outer(const struct site *left, const uint8_t *inner)
{
    uint8_t expected[OUTER_HEADERS + INNER_LEN];
    memcpy(expected, outer_headers, OUTER_HEADERS);
    memcpy(expected + OUTER_HEADERS, inner, INNER_LEN);

    unsigned ip_len = sizeof expected - 14, udp_len = ip_len - 20;
    expected[16] = ip_len >> 8, expected[17] = ip_len & 0xff;
    expected[34] = SOURCE_PORT >> 8, expected[35] = SOURCE_PORT & 0xff;
    expected[38] = udp_len >> 8, expected[39] = udp_len & 0xff;
    unsigned sum = 0; /* RFC 1071 */
    for (int at = 14; at < 34; at += 2)
        sum += (unsigned)expected[at] << 8 | expected[at + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    expected[24] = sum >> 8 & 0xff, expected[25] = sum & 0xff;

    assert(left->port == UNDERLAY && left->len == sizeof expected);
    assert(memcmp(left->bytes, expected, sizeof expected) == 0);
    printf("that is VXLAN, identifier %u, around the packet\n", (unsigned)VNI);
}

int main(void)
{
    static struct site left, right;

    struct wye_tunnel_config tunnel = WYE_TUNNEL_CONFIG_INIT;
    tunnel.kind = WYE_TUNNEL_VXLAN;
    open_site(&right, &tunnel);

    tunnel.header = outer_headers;
    tunnel.header_len = sizeof outer_headers;
    tunnel.out_port = UNDERLAY;
    tunnel.mtu = 1500; /* a longer packet would be an upcall: WYE_UPCALL_UNDELIVERABLE */
    tunnel.source_port_first = tunnel.source_port_last = SOURCE_PORT; /* so that the packet can be compared; else left out */
    open_site(&left, &tunnel);

    add_flow(left.datapath, "in_port(1)", "encap(tunnel=100)");
    /* What arrives from the underlay is taken out of tunnel 100, and is looked up again as a packet that came in there. */
    add_flow(right.datapath, "in_port(2)", "tnl_pop(100)");
    add_flow(right.datapath, "tunnel(tun_id=42,src=192.0.2.1,dst=192.0.2.2),in_port(100)", "1");

    static uint8_t inner[INNER_LEN] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, 'h', 'e', 'l', 'l', 'o'};
    receive(&left, STATION, inner, INNER_LEN);
    look_at_outer(&left, inner);

    receive(&right, UNDERLAY, left.bytes, left.len);
    assert(right.port == STATION && right.len == INNER_LEN && memcmp(right.bytes, inner, INNER_LEN) == 0);
    printf("it has come out as it went in: %s\n", (const char *)right.bytes + 14);

    close_site(&left);
    close_site(&right);
    return 0;
}
