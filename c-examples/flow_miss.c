/* flow_miss: the first packet of a flow asks, the others know.
 *
 * A packet that no flow matches is an upcall. Here the callback answers it: it looks at the packet's key, decides, and lets the library
 * install a flow, so that the packets behind it hit that flow and ask nobody. Two switches run side by side in one process with
 * different policies and know nothing of each other.
 *
 *     cc -std=c11 flow_miss.c $(pkg-config --cflags --libs wye) && ./a.out
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wye.h>

enum { FRAME_LEN = 60 };

/* One switch with its policy. */
struct site {
    const char *name;
    const char *actions; /* what is to be done with every packet */
    wye_datapath *datapath;
    wye_worker *worker;
    unsigned asked, sent;
};

static void check(wye_status status, wye_error *error)
{
    if (status == WYE_OK)
        return;
    fprintf(stderr, "%s: %s\n", wye_status_name(status), wye_error_message(error));
    wye_error_free(error);
    exit(EXIT_FAILURE);
}

/* No flow matched. Called once per packet that waits for an answer. */
static void on_miss(void *ctx, const struct wye_upcall *upcall, struct wye_answer *answer)
{
    struct site *site = ctx;
    char key[512];
    size_t key_len = sizeof key;
    site->asked++;
    check(wye_key_to_text(upcall->key, upcall->key_len, NULL, 0, key, &key_len, NULL), NULL);
    printf("%s: no flow for %s\n", site->name, key);

    /* Carry out the actions on this packet, and install a flow that does the same for every packet from this port with this
     * EtherType. Without a match the flow would match every field of the key. It goes after 10 seconds without a packet. An answer
     * that is left alone drops the packet. */
    answer->verdict = WYE_VERDICT_EXECUTE;
    answer->flags = WYE_ANSWER_INSTALL;
    answer->match_text = "in_port(1),eth_type(0x88b5)";
    answer->actions_text = site->actions;
    answer->idle_timeout_ns = 10000000000;
}

static size_t transmit(void *ctx, uint32_t port, struct wye_packet **packets, size_t n)
{
    struct site *site = ctx;
    (void)port;
    (void)packets;
    site->sent += (unsigned)n;
    return n;
}

static void start(struct site *site)
{
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    wye_error *error = NULL;

    config.pool_buffers = 64;
    config.flows_max = 1024;
    config.cache_entries = 1024;
    check(wye_datapath_new(&config, &site->datapath, &error), error);
    for (uint32_t number = 1; number <= 2; number++) {
        struct wye_port_config port = WYE_PORT_CONFIG_INIT;
        port.number = number;
        check(wye_port_add(site->datapath, &port, &error), error);
    }
    ops.transmit = transmit;
    ops.upcall = on_miss;
    check(wye_worker_new(site->datapath, &ops, site, &site->worker, &error), error);
}

/* `n` frames from station `from` come in on port 1. */
static void receive(struct site *site, uint8_t from, size_t n, uint64_t now_ns)
{
    static uint8_t bytes[8][256];
    static struct wye_packet packets[8];
    struct wye_packet *burst[8];

    for (size_t i = 0; i < n; i++) {
        const uint8_t ethernet[14] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, from, 0x88, 0xb5};
        memset(bytes[i], 0, sizeof bytes[i]);
        memcpy(bytes[i] + 64, ethernet, sizeof ethernet);
        memset(&packets[i], 0, sizeof packets[i]);
        packets[i].buffer = bytes[i];
        packets[i].capacity = sizeof bytes[i];
        packets[i].data_ofs = 64;
        packets[i].len = FRAME_LEN;
        packets[i].in_port = 1;
        burst[i] = &packets[i];
    }
    check(wye_worker_process(site->worker, burst, n, now_ns), NULL);
}

/* Prints all flows, a buffer full at a time. */
static void print_flows(struct site *site, uint64_t now_ns)
{
    wye_flow_dump *dump;
    wye_error *error = NULL;
    struct wye_flow flows[8];
    uint64_t buffer[256];
    int32_t n;

    check(wye_flow_dump_start(site->datapath, 0, &dump, &error), error);
    for (;;) {
        size_t buffer_len = sizeof buffer;
        n = wye_flow_dump_next(dump, flows, 8, buffer, &buffer_len);
        if (n <= 0)
            break;
        for (int32_t i = 0; i < n; i++) {
            char line[1024];
            size_t line_len = sizeof line;
            check(wye_flow_to_text(&flows[i], now_ns, line, &line_len, &error), error);
            printf("%s: %s\n", site->name, line);
        }
    }
    check(n, NULL);
    wye_flow_dump_free(dump);
}

/* Prints what became of the packets. Each one that came in has exactly one fate, so the others add up to packets_in. */
static void print_stats(struct site *site)
{
    wye_stats *stats;
    wye_error *error = NULL;
    uint32_t cursor = 0;
    const char *name;
    uint64_t value;

    check(wye_datapath_stats(site->datapath, &stats, &error), error);
    while (wye_stats_next(stats, &cursor, &name, &value))
        if (value != 0 && (strncmp(name, "dropped.", 8) == 0 || strcmp(name, "transmitted") == 0 ||
                           strcmp(name, "upcall") == 0 || strcmp(name, "packets_in") == 0))
            printf("%s: %s %llu\n", site->name, name, (unsigned long long)value);
    wye_stats_free(stats);
}

static void on_expired(void *ctx, const uint8_t *ufid, const struct wye_flow_stats *stats)
{
    struct site *site = ctx;
    (void)ufid;
    printf("%s: a flow went after %llu packets\n", site->name, (unsigned long long)stats->packets);
}

int main(void)
{
    struct site north = {.name = "north", .actions = "2"};
    struct site south = {.name = "south", .actions = "drop"};
    const uint64_t second = 1000000000;

    if (wye_version_check(WYE_API_VERSION, NULL) != WYE_OK)
        return EXIT_FAILURE;
    start(&north);
    start(&south);

    /* A burst of three packets of one flow is one upcall: the others find the flow that its answer installed. */
    receive(&north, 1, 3, 1 * second);
    receive(&north, 1, 8, 2 * second);
    receive(&south, 7, 2, 2 * second);
    printf("north asked %u times for %u packets sent, south %u times for %u\n", north.asked, north.sent, south.asked,
           south.sent);

    print_flows(&north, 4 * second);
    print_flows(&south, 4 * second);
    print_stats(&north);
    print_stats(&south);

    /* The work that packets do not do, about every second. After 10 seconds of silence the flows go. */
    check(wye_datapath_upkeep(north.datapath, 5 * second, 0, on_expired, &north, NULL), NULL);
    check(wye_datapath_upkeep(north.datapath, 13 * second, 0, on_expired, &north, NULL), NULL);
    printf("north has %u flows, south %u\n", (unsigned)wye_flow_count(north.datapath),
           (unsigned)wye_flow_count(south.datapath));

    wye_worker_free(north.worker);
    wye_datapath_free(north.datapath);
    wye_worker_free(south.worker);
    wye_datapath_free(south.datapath);
    return EXIT_SUCCESS;
}
