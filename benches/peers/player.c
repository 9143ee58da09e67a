/* Plays a trace into a DPDK port, as a NIC would: a plug-in for any DPDK program (`-d player.so`), public API only.
 *
 * The port is a net_null device. It hands out buffers of the program's own pool; a receive callback fills each with the
 * next frame of the trace and, like a NIC, adds an RSS hash and "checksums are good". What is sent to a net_null
 * device with no-rx=1 is freed. So a packet costs the program an allocation, a copy and a free: the floor, which
 * dpdk-testpmd measures with the same ports.
 *
 * The telemetry socket of the program takes the command `/player/play,DEVICE,FILE.pcap`; without a file the port receives
 * nothing any more.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <rte_telemetry.h>

#define BLOCK 64            /* frames begin at multiples of this, and are copied in such blocks */
#define FRAME_LEN_MAX 1536  /* what surely fits into a buffer */
#define TRACES_MAX 64       /* traces that a program can load; they are kept until it ends */
#define PORTS_MAX 8

struct frame {
    uint32_t block, hash;
    uint16_t len;
};

struct trace {
    char file[512];
    uint32_t frames_len, next;
    struct frame *frames;
    uint8_t *bytes;
};

struct port {
    char device[RTE_ETH_NAME_MAX_LEN];
    struct trace *trace;    /* NULL: silence. Written by the telemetry thread, read once per burst by the receiving one */
};

static struct trace traces[TRACES_MAX];
static struct port ports[PORTS_MAX];

static uint16_t
fill(uint16_t number, uint16_t queue, struct rte_mbuf *packets[], uint16_t n, uint16_t max, void *arg)
{
    struct trace *t = __atomic_load_n(&((struct port *)arg)->trace, __ATOMIC_ACQUIRE);

    (void)number, (void)queue, (void)max;
    if (!t) {
        rte_pktmbuf_free_bulk(packets, n);
        return 0;
    }
    uint32_t at = t->next;
    for (uint16_t i = 0; i < n; i++) {
        const struct frame *frame = &t->frames[at];
        const uint8_t *from = t->bytes + (size_t)frame->block * BLOCK;
        uint8_t *to = rte_pktmbuf_mtod(packets[i], uint8_t *);

        rte_prefetch0(from + 16 * BLOCK);
        for (uint16_t done = 0; done < frame->len; done += BLOCK) {
            memcpy(to + done, from + done, BLOCK);
        }
        packets[i]->data_len = frame->len;
        packets[i]->pkt_len = frame->len;
        packets[i]->hash.rss = frame->hash;
        packets[i]->ol_flags = RTE_MBUF_F_RX_RSS_HASH | RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        if (++at == t->frames_len) {
            at = 0;
        }
    }
    t->next = at;
    return n;
}

/* A hash of addresses and ports, of which only its spread matters: NICs have a Toeplitz hash there. */
static uint32_t
rss(const uint8_t *frame, uint16_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15;

    for (uint16_t i = 26; i + 2 <= len && i < 38; i += 2) {
        h = (h ^ frame[i] ^ frame[i + 1] << 8) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    return h;
}

/* Reads a whole pcap file (native byte order, microseconds, Ethernet) and returns NULL if it is not one. */
static struct trace *
load(const char *file)
{
    uint32_t header[6], record[4];
    uint32_t room = 0, block = 0, blocks = 0;
    struct trace *t = traces;
    FILE *f;

    while (t < traces + TRACES_MAX && t->frames_len && strcmp(t->file, file)) {
        t++;
    }
    if (t == traces + TRACES_MAX || t->frames_len) {
        return t == traces + TRACES_MAX ? NULL : t;
    }
    f = fopen(file, "rb");
    if (!f || fread(header, sizeof header, 1, f) != 1 || header[0] != 0xa1b2c3d4 || header[5] != 1) {
        goto out;
    }
    while (fread(record, sizeof record, 1, f) == 1 && record[2] > 0 && record[2] <= FRAME_LEN_MAX) {
        uint16_t len = record[2];

        if (t->frames_len == room) {
            room = room ? room * 2 : 1024;
            t->frames = realloc(t->frames, room * sizeof *t->frames);
        }
        if (block + FRAME_LEN_MAX / BLOCK > blocks) {
            blocks = blocks ? blocks * 2 : 4096;
            t->bytes = realloc(t->bytes, (size_t)blocks * BLOCK);
        }
        if (!t->frames || !t->bytes || fread(t->bytes + (size_t)block * BLOCK, len, 1, f) != 1) {
            t->frames_len = 0;
            goto out;
        }
        t->frames[t->frames_len++] =
            (struct frame){.block = block, .hash = rss(t->bytes + (size_t)block * BLOCK, len), .len = len};
        block += (len + BLOCK - 1) / BLOCK;
    }
    snprintf(t->file, sizeof t->file, "%s", file);
out:
    if (f) {
        fclose(f);
    }
    return t->frames_len ? t : NULL;
}

static int
play(const char *command, const char *params, struct rte_tel_data *answer)
{
    const char *comma = params ? strchr(params, ',') : NULL;
    char device[RTE_ETH_NAME_MAX_LEN];
    struct port *p = ports;
    struct trace *t;
    uint16_t number;

    (void)command;
    if (!comma || comma - params >= (long)sizeof device) {
        return -1;
    }
    snprintf(device, sizeof device, "%.*s", (int)(comma - params), params);
    t = comma[1] ? load(comma + 1) : NULL;
    if ((comma[1] && !t) || rte_eth_dev_get_port_by_name(device, &number)) {
        return -1;
    }
    while (p < ports + PORTS_MAX && p->device[0] && strcmp(p->device, device)) {
        p++;
    }
    if (p == ports + PORTS_MAX) {
        return -1;
    }
    __atomic_store_n(&p->trace, t, __ATOMIC_RELEASE);
    if (!p->device[0]) {
        if (!rte_eth_add_rx_callback(number, 0, fill, p)) {
            return -1;
        }
        snprintf(p->device, sizeof p->device, "%s", device);
    }
    return rte_tel_data_string(answer, t ? "playing" : "silent");
}

RTE_INIT(player)
{
    rte_telemetry_register_cmd("/player/play", play, "Plays a trace into a port. Parameters: device, file or nothing");
}
