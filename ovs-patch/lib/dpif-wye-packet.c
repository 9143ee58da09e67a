/* Packets: from netdevs into the library and back, and up to Open vSwitch.
 *
 *     netdev_rxq_recv ─▶ dw_carry ─▶ library ─▶ send ─▶ netdev_send
 *                                       └────▶ answer ─▶ upcall_cb ─▶ execute (another carrier) ─▶ install the flow
 *
 * Open vSwitch executes packets while it answers an upcall, and the actions of an answer may lead to the next upcall. So each call into the
 * library has a carrier of its own: one that is idle, or a new one. */

#include <config.h>
#include <errno.h>
#include "coverage.h"
#include "dpif-wye.h"
#include "dpif-wye-private.h"
#include "netdev.h"
#include "netlink.h"
#include "odp-execute.h"
#include "odp-util.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/ofp-print.h"
#include "openvswitch/ofpbuf.h"
#include "packets.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dpif_wye_packet);

COVERAGE_DEFINE(dpif_wye_execute_refused);

/* Carriers at work one inside the other: upcalls whose actions lead to upcalls. */
#define DEPTH_MAX 16

/* Carriers that there are from the beginning: for a packet, for the answer to its upcall and for that to an upcall of the answer's. To make
 * one takes milliseconds, which no packet should wait. */
#define CARRIERS_AHEAD 3

/* A dp_packet's buffer is never longer than 65535 bytes. */
static size_t
headroom_for(size_t len)
{
    return MIN(DW_HEADROOM, UINT16_MAX - MIN(len, UINT16_MAX));
}

static struct vlog_rate_limit upcall_rl = VLOG_RATE_LIMIT_INIT(600, 600);

/* A worker of the library's and the descriptors of what it carries. */
struct dw_carrier {
    struct ovs_list all;             /* In 'dp->carriers'. */
    struct ovs_list idle;            /* In 'dp->idle'. */
    struct dw_dp *dp;
    struct wye_worker *worker;
    struct wye_counters counted;     /* What has been told to dpif_netdev_count_drops(). */
    struct wye_packet descriptors[NETDEV_MAX_BURST];
    struct wye_packet *pointers[NETDEV_MAX_BURST];
};

static void
describe(struct dp_packet *packet, struct wye_packet *w)
{
    uint32_t type = ntohl(packet->packet_type);

    memset(w, 0, sizeof *w);
    w->buffer = dp_packet_base(packet);
    w->capacity = dp_packet_get_allocated(packet);
    w->data_ofs = (uint8_t *) dp_packet_data(packet) - w->buffer;
    w->len = dp_packet_size(packet);
    w->token = packet;
    w->packet_type = type;
    w->in_port = odp_to_u32(packet->md.in_port.odp_port);
    w->recirc_id = packet->md.recirc_id;
    w->dp_hash = packet->md.dp_hash;
    w->skb_mark = packet->md.pkt_mark;
    w->skb_priority = packet->md.skb_priority;
    if (dp_packet_rss_valid(packet)) {
        w->rss_hash = dp_packet_get_rss_hash(packet);
        w->flags = WYE_PKT_RSS_VALID;
    }
}

/* Takes over what the library did to a packet of ours. */
static void
undescribe(const struct wye_packet *w, struct dp_packet *packet)
{
    dp_packet_set_data(packet, w->buffer + w->data_ofs);
    dp_packet_set_size(packet, w->len);
    dp_packet_reset_offsets(packet);
    packet->packet_type = htonl(w->packet_type);
    packet->md.recirc_id = w->recirc_id;
    packet->md.dp_hash = w->dp_hash;
    packet->md.pkt_mark = w->skb_mark;
    packet->md.skb_priority = w->skb_priority;
}

/* A packet of ours with the bytes of one of the library's. */
static struct dp_packet *
copy(const struct wye_packet *w)
{
    struct dp_packet *packet = dp_packet_clone_data_with_headroom(w->buffer + w->data_ofs, w->len, headroom_for(w->len));

    pkt_metadata_init(&packet->md, u32_to_odp(w->in_port));
    packet->md.recirc_id = w->recirc_id;
    packet->md.dp_hash = w->dp_hash;
    packet->md.pkt_mark = w->skb_mark;
    packet->md.skb_priority = w->skb_priority;
    packet->packet_type = htonl(w->packet_type);
    if (w->flags & WYE_PKT_RSS_VALID) {
        dp_packet_set_rss_hash(packet, w->rss_hash);
    }
    return packet;
}

/* Makes the ports that drop actions send to. */
int
dw_drop_ports_create(struct dw_dp *dp)
{
    int error = 0;

    for (uint32_t reason = 0; reason < XLATE_MAX && !error; reason++) {
        struct wye_port_config config = WYE_PORT_CONFIG_INIT;

        config.number = DW_DROP_PORT + reason;
        error = wye_status_to_errno(wye_port_add(dp->engine, &config, NULL));
    }
    return error;
}

/* Drops a packet that an action drop(reason) sent here, and counts it: as Open vSwitch does. */
static void
drop_packet(const struct wye_packet *w, uint32_t reason)
{
    struct dp_packet *packet = w->flags & WYE_PKT_ENGINE ? dp_packet_new(0) : w->token;
    struct dp_packet_batch batch;
    struct { struct nlattr header; uint32_t reason; } drop = {
        .header = { .nla_len = sizeof drop, .nla_type = OVS_ACTION_ATTR_DROP },
        .reason = reason,
    };

    dp_packet_batch_init_packet(&batch, packet);
    odp_execute_actions(NULL, &batch, true, &drop.header, sizeof drop, NULL);
}

/* The library's 'transmit'. */
static size_t
send_packets(void *carrier_, uint32_t port_no, struct wye_packet **packets, size_t n)
{
    struct dw_carrier *carrier = carrier_;
    struct dw_port *port = dw_port_lookup(carrier->dp, u32_to_odp(port_no));
    struct dp_packet_batch batch;

    if (port_no >= DW_DROP_PORT) {
        for (size_t i = 0; i < n; i++) {
            drop_packet(packets[i], port_no - DW_DROP_PORT);
        }
        return n;
    }
    if (!port) {
        /* It went while a burst was under way. */
        dpif_netdev_count_drops(DPIF_WYE_DROP_INVALID_PORT, n);
        return 0;
    }
    for (size_t i = 0; i < n; ) {
        dp_packet_batch_init(&batch);
        for (; i < n && !dp_packet_batch_is_full(&batch); i++) {
            struct dp_packet *packet = packets[i]->token;

            if (packets[i]->flags & WYE_PKT_ENGINE) {
                packet = copy(packets[i]);
            } else {
                undescribe(packets[i], packet);
            }
            dp_packet_batch_add(&batch, packet);
        }
        netdev_send(port->netdev, 0, &batch, false);
    }
    return n;
}

/* The library's 'release'. */
static void
release_packets(void *carrier OVS_UNUSED, struct wye_packet **packets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        dp_packet_delete(packets[i]->token);
    }
}

static void
log_upcall(const struct dw_dp *dp, const struct dp_packet *packet, const struct flow *flow, enum dpif_upcall_type type)
{
    struct vlog_module *module = dw_flow_log();

    if (vlog_should_drop(module, VLL_DBG, &upcall_rl)) {
        return;
    }
    struct odp_flow_key_parms parms = { .flow = flow, .support = dw_key_support };
    struct ds s = DS_EMPTY_INITIALIZER;
    struct ofpbuf key;
    char *bytes = ofp_dp_packet_to_string(packet);

    ofpbuf_init(&key, 0);
    odp_flow_key_from_flow(&parms, &key);
    odp_flow_key_format(key.data, key.size, &s);
    vlog(module, VLL_DBG, "%s: %s upcall:\n%s\n%s", dp->name, dpif_upcall_type_to_string(type), ds_cstr(&s), bytes);
    ds_destroy(&s);
    ofpbuf_uninit(&key);
    free(bytes);
}

static int execute(struct dw_dp *, struct dp_packet *, const struct nlattr *, size_t, uint32_t flags, struct wye_packet *end)
    OVS_REQUIRES(dp->mutex);

/* Asks Open vSwitch about a packet and does what it says. Takes 'packet'. */
static int
ask(struct dw_dp *dp, struct dp_packet *packet, const struct nlattr *userspace)
    OVS_REQUIRES(dp->mutex)
{
    enum dpif_upcall_type type = userspace ? DPIF_UC_ACTION : DPIF_UC_MISS;
    uint64_t actions_stub[1024 / 8], put_actions_stub[1024 / 8];
    struct ofpbuf actions, put_actions;
    const struct nlattr *userdata = NULL;
    struct wye_packet end;
    struct match match;
    ovs_u128 ufid;

    memset(&match, 0, sizeof match);
    flow_extract(packet, &match.flow);
    odp_flow_key_hash(&match.flow, sizeof match.flow, &ufid);
    if (userspace) {
        userdata = nl_attr_find_nested(userspace, OVS_USERSPACE_ATTR_USERDATA);
    }
    ofpbuf_use_stub(&actions, actions_stub, sizeof actions_stub);
    ofpbuf_use_stub(&put_actions, put_actions_stub, sizeof put_actions_stub);
    log_upcall(dp, packet, &match.flow, type);
    int error = dp->upcall_cb(packet, &match.flow, &ufid, DW_PMD_ID, type, userdata, &actions, userspace ? NULL : &match.wc,
                              userspace ? NULL : &put_actions, dp->upcall_aux);
    if (!error || error == ENOSPC) {
        execute(dp, packet, actions.data, actions.size, 0, &end);
    } else {
        dp_packet_delete(packet);
    }
    /* Only now: flows of packets that recirculate are older than that which sent them round. */
    if (!error && !userspace) {
        const struct ofpbuf *install = put_actions.size ? &put_actions : &actions;

        dw_flow_install(dp, &match, &ufid, WYE_PUT_CREATE | WYE_PUT_UNLESS_MATCHED, install->data, install->size, false, NULL);
    }
    ofpbuf_uninit(&actions);
    ofpbuf_uninit(&put_actions);
    return error;
}

/* The library's 'upcall'. The actions are carried out here, on a copy, so that they are over before the next packet's turn. */
static void
answer_upcall(void *carrier_, const struct wye_upcall *upcall, struct wye_answer *answer)
    OVS_NO_THREAD_SAFETY_ANALYSIS
{
    struct dw_carrier *carrier = carrier_;
    struct dw_dp *dp = carrier->dp;

    if (dp->depth > DEPTH_MAX) {
        dpif_netdev_count_drops(DPIF_WYE_DROP_RECIRC_ERROR, 1);
        return;
    }
    if (fat_rwlock_tryrdlock(&dp->upcall_rwlock)) {
        dpif_netdev_count_drops(DPIF_WYE_DROP_LOCK_ERROR, 1);
        return;
    }
    int error = ENODEV;
    if (dp->upcall_cb) {
        struct dp_packet *packet = copy(upcall->packet);

        dw_tunnel_of_key(upcall->key, upcall->key_len, &packet->md.tunnel);
        error = ask(dp, packet, upcall->action);
    }
    fat_rwlock_unlock(&dp->upcall_rwlock);
    /* ENOSPC has actions, but is to leave no flow behind. */
    bool is_done = !error || error == ENOSPC;

    if (upcall->kind == WYE_UPCALL_MISS) {
        dp->n_missed += !error;
        dp->n_lost += error != 0;
        dpif_netdev_count_drops(DPIF_WYE_DROP_UPCALL_ERROR, !is_done);
    } else if (!(upcall->packet->flags & WYE_PKT_ENGINE)) {
        dpif_netdev_count_drops(DPIF_WYE_DROP_USERSPACE_ACTION_ERROR, !is_done);
    }
    if (is_done) {
        answer->verdict = WYE_VERDICT_DONE;
    }
}

static struct dw_carrier *
new_carrier(struct dw_dp *dp)
{
    struct dw_carrier *carrier = xzalloc(sizeof *carrier);
    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    struct wye_error *error = NULL;

    ops.transmit = send_packets;
    ops.release = release_packets;
    ops.upcall = answer_upcall;
    carrier->dp = dp;
    if (wye_worker_new(dp->engine, &ops, carrier, &carrier->worker, &error)) {
        VLOG_ERR("%s: no further worker: %s", dp->name, wye_error_message(error));
        wye_error_free(error);
        free(carrier);
        return NULL;
    }
    ovs_list_push_back(&dp->carriers, &carrier->all);
    return carrier;
}

/* Makes the first carriers. */
int
dw_carriers_create(struct dw_dp *dp)
{
    for (int i = 0; i < CARRIERS_AHEAD; i++) {
        struct dw_carrier *carrier = new_carrier(dp);

        if (!carrier) {
            return ENOMEM;
        }
        ovs_list_push_back(&dp->idle, &carrier->idle);
    }
    return 0;
}

static struct dw_carrier *
begin(struct dw_dp *dp)
    OVS_REQUIRES(dp->mutex)
{
    struct dw_carrier *carrier;

    if (ovs_list_is_empty(&dp->idle)) {
        carrier = new_carrier(dp);
    } else {
        carrier = CONTAINER_OF(ovs_list_pop_back(&dp->idle), struct dw_carrier, idle);
    }
    dp->depth += carrier != NULL;
    return carrier;
}

/* Tells what the carrier has dropped since the last time. */
static void
count_drops(struct dw_carrier *carrier)
{
    static const struct { enum wye_drop ours; enum dpif_wye_drop theirs; } names[] = {
        { WYE_DROP_RX_INVALID, DPIF_WYE_DROP_RX_INVALID_PACKET },
        { WYE_DROP_METER, DPIF_WYE_DROP_METER },
        { WYE_DROP_RECIRCULATION_LIMIT, DPIF_WYE_DROP_RECIRC_ERROR },
        { WYE_DROP_INVALID_PORT, DPIF_WYE_DROP_INVALID_PORT },
        { WYE_DROP_INVALID_BOND, DPIF_WYE_DROP_INVALID_BOND },
        { WYE_DROP_UNKNOWN_TUNNEL, DPIF_WYE_DROP_INVALID_TNL_PORT },
        { WYE_DROP_TUNNEL_HEADER, DPIF_WYE_DROP_TUNNEL_POP_ERROR },
        { WYE_DROP_TUNNEL_CHECKSUM, DPIF_WYE_DROP_TUNNEL_POP_ERROR },
        { WYE_DROP_TUNNEL_FRAGMENT, DPIF_WYE_DROP_TUNNEL_POP_ERROR },
        { WYE_DROP_TUNNEL_OPTION, DPIF_WYE_DROP_TUNNEL_POP_ERROR },
    };
    struct wye_counters now;

    if (wye_worker_counters(carrier->worker, &now) || now.drops_total == carrier->counted.drops_total) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        dpif_netdev_count_drops(names[i].theirs, now.drops[names[i].ours] - carrier->counted.drops[names[i].ours]);
    }
    carrier->counted = now;
}

static void
end(struct dw_carrier *carrier)
{
    count_drops(carrier);
    carrier->dp->depth--;
    ovs_list_push_back(&carrier->dp->idle, &carrier->idle);
}

void
dw_carriers_destroy(struct dw_dp *dp)
{
    struct dw_carrier *carrier;

    LIST_FOR_EACH_SAFE (carrier, all, &dp->carriers) {
        wye_worker_free(carrier->worker);
        free(carrier);
    }
    ovs_list_init(&dp->carriers);
    ovs_list_init(&dp->idle);
}

/* Lookups that found a flow. */
uint64_t
dw_carriers_hits(struct dw_dp *dp)
{
    struct dw_carrier *carrier;
    struct wye_counters counters;
    uint64_t hits = 0;

    LIST_FOR_EACH (carrier, all, &dp->carriers) {
        if (!wye_worker_counters(carrier->worker, &counters)) {
            hits += counters.hits;
        }
    }
    return hits;
}

/* Carries packets that came in on 'in_port'. Takes them. */
void
dw_carry(struct dw_dp *dp, struct dp_packet_batch *batch, odp_port_t in_port)
{
    struct dw_carrier *carrier = begin(dp);
    struct dp_packet *packet;

    if (!carrier) {
        dp_packet_delete_batch(batch, true);
        return;
    }
    DP_PACKET_BATCH_FOR_EACH (i, packet, batch) {
        pkt_metadata_init(&packet->md, in_port);
        carrier->pointers[i] = &carrier->descriptors[i];
        describe(packet, carrier->pointers[i]);
    }
    wye_status status = wye_worker_process(carrier->worker, carrier->pointers, dp_packet_batch_size(batch), dw_now_ns());
    if (status) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

        /* "Invalid" and "busy" leave the packets alone, but then there is a bug here. After a panic nothing is known of them. */
        VLOG_ERR_RL(&rl, "%s: packets were not carried: %s", dp->name, wye_status_name(status));
    }
    end(carrier);
}

/* Carries out actions. Takes 'packet' unless WYE_EXECUTE_KEEP is given; 'end_' gets what it is afterwards. */
static int
execute(struct dw_dp *dp, struct dp_packet *packet, const struct nlattr *actions, size_t actions_len, uint32_t flags, struct wye_packet *end_)
{
    struct dw_carrier *carrier = begin(dp);
    struct wye_error *detail = NULL;
    struct ofpbuf translated;

    if (!carrier) {
        if (!(flags & WYE_EXECUTE_KEEP)) {
            dp_packet_delete(packet);
        }
        return ENOMEM;
    }
    struct wye_packet *w = &carrier->descriptors[0];

    describe(packet, w);
    ofpbuf_init(&translated, actions_len);
    dw_tunnel_put(&packet->md.tunnel, &translated);
    ofpbuf_put(&translated, actions, actions_len);
    dw_actions_for_library(translated.data, translated.size);
    wye_status status = wye_worker_execute(carrier->worker, w, translated.data, translated.size, flags, dw_now_ns(), &detail);
    ofpbuf_uninit(&translated);
    *end_ = *w;
    end(carrier);
    if (status) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

        COVERAGE_INC(dpif_wye_execute_refused);
        VLOG_WARN_RL(&rl, "%s: actions were refused: %s", dp->name, wye_error_message(detail));
        if (!(flags & WYE_EXECUTE_KEEP) && (status == WYE_E_INVALID || status == WYE_E_UNSUPPORTED)) {
            dp_packet_delete(packet);
        }
    }
    return dw_errno(status, detail);
}

int
dpif_wye_execute(struct dw_dp *dp, struct dpif_execute *execute_)
{
    struct wye_packet after;
    size_t text_len = 0;

    if (dp_packet_size(execute_->packet) < ETH_HEADER_LEN || dp_packet_size(execute_->packet) > UINT16_MAX) {
        return EINVAL;
    }
    if (execute_->probe) {
        /* Nothing is sent; but what cannot be carried out must be known. */
        wye_status status = wye_actions_to_text(execute_->actions, execute_->actions_len, NULL, &text_len, NULL);

        return status == WYE_E_NO_SPACE ? 0 : wye_status_to_errno(status);
    }
    struct dp_packet *packet = dp_packet_clone_with_headroom(execute_->packet, headroom_for(dp_packet_size(execute_->packet)));

    ovs_mutex_lock(&dp->mutex);
    int error = execute(dp, packet, execute_->actions, execute_->actions_len, WYE_EXECUTE_KEEP, &after);
    ovs_mutex_unlock(&dp->mutex);
    if (!error && after.fate == WYE_FATE_KEPT) {
        undescribe(&after, packet);
        dp_packet_swap(execute_->packet, packet);
    }
    dp_packet_delete(packet);
    return error;
}
