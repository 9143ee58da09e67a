/* own_packets: packets in the caller's own memory go through the switch without a copy.
 *
 * The program plays a device driver: it has frames in buffers of its own, describes each with a struct wye_packet, and hands a burst to
 * wye_worker_process. The library asks for packets to be sent through `transmit` and gives the others back through `release`. What comes
 * back is the very descriptor and the very buffer that went in; the program checks that by comparing pointers.
 *
 *     cc -std=c11 own_packets.c $(pkg-config --cflags --libs wye) && ./a.out
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wye.h>

enum { BUFFERS = 4, HEADROOM = 128, FRAME_LEN = 60 };

/* A buffer of this "driver": the descriptor that the library sees, and the bytes. */
struct buffer {
    struct wye_packet packet;
    uint8_t bytes[512];
};

/* What the callbacks see through their `ctx`. */
struct driver {
    struct buffer buffers[BUFFERS];
    int sent, released;
};

static void check(wye_status status, wye_error *error)
{
    if (status == WYE_OK)
        return;
    fprintf(stderr, "%s: %s\n", wye_status_name(status), wye_error_message(error));
    wye_error_free(error);
    exit(EXIT_FAILURE);
}

/* Puts a frame from 02:00:00:00:00:01 to 02:00:00:00:00:02 into buffer `i` and describes it. */
static struct wye_packet *receive(struct driver *driver, int i, uint32_t in_port)
{
    static const uint8_t ethernet[14] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};
    struct buffer *buffer = &driver->buffers[i];
    uint8_t *frame = buffer->bytes + HEADROOM;

    memset(frame, i, FRAME_LEN);
    memcpy(frame, ethernet, sizeof ethernet);

    memset(&buffer->packet, 0, sizeof buffer->packet);
    buffer->packet.buffer = buffer->bytes;
    buffer->packet.capacity = sizeof buffer->bytes;
    buffer->packet.data_ofs = HEADROOM; /* room in front: headers are pushed into it */
    buffer->packet.len = FRAME_LEN;
    buffer->packet.in_port = in_port;
    buffer->packet.token = buffer; /* ours; the library only carries it */
    return &buffer->packet;
}

/* The library wants `n` packets sent to `port`. We take them all. */
static size_t transmit(void *ctx, uint32_t port, struct wye_packet **packets, size_t n)
{
    struct driver *driver = ctx;
    for (size_t i = 0; i < n; i++) {
        struct wye_packet *packet = packets[i];
        if (packet->flags & WYE_PKT_ENGINE) {
            /* A copy that the library made, because the packet goes to two ports. Ours only during this call. */
            printf("port %u: a copy of %u bytes\n", (unsigned)port, (unsigned)packet->len);
            continue;
        }
        /* One of our own: the same descriptor, the same buffer, the payload where it was. */
        struct buffer *buffer = packet->token;
        assert(packet == &buffer->packet);
        assert(packet->buffer == buffer->bytes);
        const uint8_t *payload = packet->buffer + packet->data_ofs + packet->len - (FRAME_LEN - 14);
        assert(payload == buffer->bytes + HEADROOM + 14);
        printf("port %u: buffer %d, %u bytes from offset %u\n", (unsigned)port, (int)(buffer - driver->buffers),
               (unsigned)packet->len, (unsigned)packet->data_ofs);
        driver->sent++;
        /* A real driver queues the buffer here and recycles it when the hardware is done. */
    }
    return n;
}

/* Packets that are not sent come back, with their fate. */
static void release(void *ctx, struct wye_packet **packets, size_t n)
{
    struct driver *driver = ctx;
    for (size_t i = 0; i < n; i++) {
        struct buffer *buffer = packets[i]->token;
        assert(packets[i] == &buffer->packet);
        printf("back: buffer %d, %s\n", (int)(buffer - driver->buffers),
               packets[i]->fate == WYE_FATE_DROPPED ? wye_drop_name(packets[i]->reason) : "sent as a copy");
        driver->released++;
    }
}

static void add_port(wye_datapath *datapath, uint32_t number)
{
    struct wye_port_config port = WYE_PORT_CONFIG_INIT;
    wye_error *error = NULL;
    port.number = number;
    check(wye_port_add(datapath, &port, &error), error);
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

int main(void)
{
    static struct driver driver;
    wye_error *error = NULL;

    wye_datapath *datapath;
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    config.pool_buffers = 64; /* only for copies: our packets are in our own buffers */
    check(wye_datapath_new(&config, &datapath, &error), error);
    add_port(datapath, 1);
    add_port(datapath, 2);
    add_port(datapath, 3);

    /* From port 1: add a VLAN tag, which moves the Ethernet addresses into the headroom but no payload, and send to port 2. */
    add_flow(datapath, "in_port(1)", "push_vlan(vid=5,pcp=0),2");
    /* From port 2: to both others. The first gets a copy, the last the packet itself. */
    add_flow(datapath, "in_port(2)", "1,3");
    /* From port 3: nowhere. */
    add_flow(datapath, "in_port(3)", "drop");

    wye_worker *worker;
    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    ops.transmit = transmit;
    ops.release = release;
    check(wye_worker_new(datapath, &ops, &driver, &worker, &error), error);

    struct wye_packet *burst[BUFFERS] = {
        receive(&driver, 0, 1),
        receive(&driver, 1, 1),
        receive(&driver, 2, 2),
        receive(&driver, 3, 3),
    };
    /* Time is ours to give: any monotonic clock in nanoseconds. */
    check(wye_worker_process(worker, burst, BUFFERS, 1000000000), NULL);

    assert(driver.sent + driver.released == BUFFERS);
    printf("%d sent, %d back, none copied on its way\n", driver.sent, driver.released);

    wye_worker_free(worker);
    wye_datapath_free(datapath);
    return 0;
}
