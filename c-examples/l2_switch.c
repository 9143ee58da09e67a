/* l2_switch: a learning Ethernet switch in one upcall callback.
 *
 * The library drives the ports. A frame that no flow matches comes up; the callback learns on which port its source lives and answers:
 * to the destination's port if that is known, and with a flow, so that the next frames between the two stations ask nobody; else to
 * all other ports, without one.
 *
 *     cc -std=c11 l2_switch.c $(pkg-config --cflags --libs wye) -o l2_switch
 *     ./l2_switch tap:interface=vm0 tap:interface=vm1                               two virtual machines
 *     ./l2_switch af_packet:interface=eth1 af_packet:interface=eth2                 two network cards
 *     ./l2_switch pcap:read=in1.pcap,write=out1.pcap pcap:read=in2.pcap,write=out2.pcap   no root, ends with the traces
 *
 * It ends with its traces, or with a signal.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wye.h>

enum { PORTS_MAX = 16, STATIONS_MAX = 1024 };

struct station {
    uint8_t address[6];
    uint32_t port;
};

struct bridge {
    wye_datapath *datapath;
    wye_worker *worker;
    uint32_t ports; /* numbered from 1 */
    struct station stations[STATIONS_MAX];
    size_t n_stations;
    char actions[256]; /* what the last answer points to: valid until the next callback */
    char match[256];
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void check(wye_status status, wye_error *error)
{
    if (status == WYE_OK)
        return;
    fprintf(stderr, "%s: %s\n", wye_status_name(status), wye_error_message(error));
    wye_error_free(error);
    exit(EXIT_FAILURE);
}

/* The switch's clock. The library never reads one. */
static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct station *find(struct bridge *bridge, const uint8_t *address)
{
    for (size_t i = 0; i < bridge->n_stations; i++)
        if (memcmp(bridge->stations[i].address, address, 6) == 0)
            return &bridge->stations[i];
    return NULL;
}

static void format(char *out, size_t size, const uint8_t *a)
{
    snprintf(out, size, "%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void learn(struct bridge *bridge, const uint8_t *address, uint32_t port)
{
    struct station *station = find(bridge, address);
    char text[18];

    if (address[0] & 1)
        return; /* no station sends from a group address */
    if (station != NULL && station->port == port)
        return;
    if (station == NULL) {
        if (bridge->n_stations == STATIONS_MAX)
            return; /* full: its frames are flooded */
        station = &bridge->stations[bridge->n_stations++];
        memcpy(station->address, address, 6);
    } else {
        /* It has moved. Flows lead to its old port: begin anew. */
        check(wye_flow_flush(bridge->datapath, NULL, NULL), NULL);
    }
    station->port = port;
    format(text, sizeof text, address);
    printf("%s is on port %" PRIu32 "\n", text, port);
}

static void on_upcall(void *ctx, const struct wye_upcall *upcall, struct wye_answer *answer)
{
    struct bridge *bridge = ctx;
    const struct wye_packet *packet = upcall->packet;
    const uint8_t *frame = packet->buffer + packet->data_ofs;
    const struct station *to;
    char src[18], dst[18];

    /* The library has checked that the Ethernet header is there. */
    learn(bridge, frame + 6, packet->in_port);
    format(dst, sizeof dst, frame);
    format(src, sizeof src, frame + 6);
    to = find(bridge, frame);
    if (to != NULL && to->port == packet->in_port)
        return; /* it is there already: an untouched answer drops */

    answer->verdict = WYE_VERDICT_EXECUTE;
    answer->actions_text = bridge->actions;
    if (to != NULL) {
        snprintf(bridge->actions, sizeof bridge->actions, "%" PRIu32, to->port);
        snprintf(bridge->match, sizeof bridge->match, "in_port(%" PRIu32 "),eth(src=%s,dst=%s)", packet->in_port, src, dst);
        answer->flags = WYE_ANSWER_INSTALL;
        answer->match_text = bridge->match;
        answer->idle_timeout_ns = 300000000000; /* five minutes, as IEEE 802.1D has it */
        printf("%s to %s: a flow to port %" PRIu32 "\n", src, dst, to->port);
    } else {
        size_t len = 0;
        bridge->actions[0] = '\0';
        for (uint32_t port = 1; port <= bridge->ports; port++)
            if (port != packet->in_port)
                len += (size_t)snprintf(bridge->actions + len, sizeof bridge->actions - len, "%s%" PRIu32, len != 0 ? "," : "", port);
        printf("%s to %s: to all others\n", src, dst);
    }
}

/* Opens "KIND:OPTIONS" as the next port. */
static void open_port(struct bridge *bridge, char *spec)
{
    struct wye_port_config port = WYE_PORT_CONFIG_INIT;
    wye_error *error = NULL;
    char *options = strchr(spec, ':');

    if (options != NULL)
        *options++ = '\0';
    port.number = ++bridge->ports;
    check(wye_port_open(bridge->worker, &port, spec, options, &error), error);
}

int main(int argc, char **argv)
{
    static struct bridge bridge;
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    wye_error *error = NULL;
    uint64_t upkeep_at = 0;

    if (argc < 3 || argc > PORTS_MAX + 1) {
        fprintf(stderr, "usage: %s KIND:OPTIONS KIND:OPTIONS... (2 to %d ports)\n", argv[0], PORTS_MAX);
        return EXIT_FAILURE;
    }
    check(wye_version_check(WYE_API_VERSION, &error), error);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);

    check(wye_datapath_new(&config, &bridge.datapath, &error), error);
    ops.upcall = on_upcall; /* no `transmit`: all ports are the library's */
    check(wye_worker_new(bridge.datapath, &ops, &bridge, &bridge.worker, &error), error);
    for (int i = 1; i < argc; i++)
        open_port(&bridge, argv[i]);

    while (!stopped) {
        size_t carried;
        check(wye_worker_poll(bridge.worker, now(), &carried), NULL);
        if (now() >= upkeep_at) {
            check(wye_datapath_upkeep(bridge.datapath, now(), 0, NULL, NULL, NULL), NULL);
            upkeep_at = now() + 1000000000;
        }
        if (carried == 0) {
            /* Nothing to do: sleep until there is. A signal ends the sleep as well. */
            wye_status status = wye_worker_wait(bridge.worker, 500000000, &error);
            if (status == WYE_E_NOT_FOUND) {
                wye_error_free(error);
                break; /* all traces are over */
            }
            check(status, error);
        }
    }

    wye_stats *stats;
    const char *name;
    uint64_t value;
    check(wye_datapath_stats(bridge.datapath, &stats, &error), error);
    for (uint32_t cursor = 0; wye_stats_next(stats, &cursor, &name, &value);)
        if (value != 0 && (strstr(name, "transmitted") != NULL || strncmp(name, "dropped.", 8) == 0))
            printf("%s %" PRIu64 "\n", name, value);
    wye_stats_free(stats);
    printf("%u flows\n", (unsigned)wye_flow_count(bridge.datapath));

    /* The worker closes its ports. */
    wye_worker_free(bridge.worker);
    wye_datapath_free(bridge.datapath);
    return EXIT_SUCCESS;
}
