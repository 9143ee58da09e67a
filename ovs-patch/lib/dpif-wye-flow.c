/* Flows. The library has them; here is only what it does not know: their order, and the identifiers that Open vSwitch's log shows.
 *
 * A flow's key and mask are written anew from 'struct match', so that what is read back does not depend on who installed the flow. */

#include <config.h>
#include <errno.h>
#include "dpif-wye-private.h"
#include "hash.h"
#include "odp-util.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/ofpbuf.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dpif_wye_flow);

/* Flows that one call of flow_dump_next() returns at most. */
#define DUMP_BATCH 50

const struct odp_support dw_key_support = {
    .max_vlan_headers = SIZE_MAX,
    .max_mpls_depth = SIZE_MAX,
    .recirc = true,
    .ct_state = true,
    .ct_zone = true,
    .ct_mark = true,
    .ct_label = true,
    .ct_state_nat = true,
    .ct_orig_tuple = true,
    .ct_orig_tuple6 = true,
};

struct dw_flow_entry {
    struct hmap_node node;
    struct ovs_list order;
    ovs_u128 ufid;
};

static struct vlog_rate_limit change_rl = VLOG_RATE_LIMIT_INIT(600, 600);

void
dw_flows_init(struct dw_dp *dp)
{
    ovs_mutex_init(&dp->flow_mutex);
    hmap_init(&dp->flows);
    ovs_list_init(&dp->flow_order);
}

static struct dw_flow_entry *
find(const struct dw_dp *dp, const ovs_u128 *ufid)
{
    struct dw_flow_entry *entry;

    HMAP_FOR_EACH_WITH_HASH (entry, node, hash_bytes(ufid, sizeof *ufid, 0), &dp->flows) {
        if (ovs_u128_equals(entry->ufid, *ufid)) {
            return entry;
        }
    }
    return NULL;
}

static void
forget(struct dw_dp *dp, struct dw_flow_entry *entry)
{
    if (entry) {
        hmap_remove(&dp->flows, &entry->node);
        ovs_list_remove(&entry->order);
        free(entry);
    }
}

static void
forget_all(struct dw_dp *dp)
{
    struct dw_flow_entry *entry;

    LIST_FOR_EACH_SAFE (entry, order, &dp->flow_order) {
        forget(dp, entry);
    }
}

void
dw_flows_destroy(struct dw_dp *dp)
{
    forget_all(dp);
    hmap_destroy(&dp->flows);
    ovs_mutex_destroy(&dp->flow_mutex);
}

int
dpif_wye_flow_flush(struct dpif *dpif)
{
    struct dw_dp *dp = dw_dp_of(dpif);
    struct wye_error *error = NULL;

    ovs_mutex_lock(&dp->flow_mutex);
    wye_status status = wye_flow_flush(dp->engine, NULL, &error);
    forget_all(dp);
    ovs_mutex_unlock(&dp->flow_mutex);
    return dw_errno(status, error);
}

static void
write_stats(const struct wye_flow_stats *from, struct dpif_flow_stats *to)
{
    memset(to, 0, sizeof *to);
    to->n_packets = from->packets;
    to->n_bytes = from->bytes;
    to->used = from->used_ns / (1000 * 1000);
    to->tcp_flags = from->tcp_flags;
}

static void
encode(const struct match *match, struct ofpbuf *key, struct ofpbuf *mask)
{
    struct odp_flow_key_parms parms = {
        .flow = &match->flow,
        .mask = &match->wc.masks,
        .support = dw_key_support,
    };

    odp_flow_key_from_flow(&parms, key);
    parms.key_buf = key;
    odp_flow_key_from_mask(&parms, mask);
}

/* Says of a change what dpif-netdev says of it. */
static void
log_change(const struct match *match, const ovs_u128 *ufid, const struct ofpbuf *key, const struct ofpbuf *mask,
           const struct wye_flow *old, const struct nlattr *actions, size_t actions_len)
{
    struct vlog_module *module = dw_flow_log();

    if (vlog_should_drop(module, VLL_DBG, &change_rl)) {
        return;
    }
    struct match masked = *match;
    ovs_u128 mega_ufid;
    struct ds s = DS_EMPTY_INITIALIZER;
    uint8_t *bytes = (uint8_t *) &masked.flow;
    const uint8_t *wild = (const uint8_t *) &masked.wc.masks;

    for (size_t i = 0; i < sizeof masked.flow; i++) {
        bytes[i] &= wild[i];
    }
    odp_flow_key_hash(&masked.flow, sizeof masked.flow, &mega_ufid);
    ds_put_cstr(&s, old ? "flow_mod: " : "flow_add: ");
    odp_format_ufid(ufid, &s);
    ds_put_cstr(&s, " mega_");
    odp_format_ufid(&mega_ufid, &s);
    ds_put_char(&s, ' ');
    odp_flow_format(key->data, key->size, mask->data, mask->size, NULL, &s, false, true);
    if (old) {
        ds_put_cstr(&s, ", old_actions:");
        format_odp_actions(&s, old->actions, old->actions_len, NULL);
    }
    ds_put_cstr(&s, ", actions:");
    format_odp_actions(&s, actions, actions_len, NULL);
    vlog(module, VLL_DBG, "%s", ds_cstr(&s));

    ds_clear(&s);
    ds_put_cstr(&s, "flow match: ");
    /* dpif-netdev has a table for each port, so that the port is in none of them. */
    masked.flow.in_port.odp_port = masked.wc.masks.in_port.odp_port = 0;
    match_format(&masked, NULL, &s, OFP_DEFAULT_PRIORITY);
    vlog(module, VLL_DBG, "%s", ds_cstr(&s));
    ds_destroy(&s);
}

/* Reads a flow into 'buffer', which grows as needed. */
static wye_status
read_flow(const struct dw_dp *dp, const ovs_u128 *ufid, struct ofpbuf *buffer, struct wye_flow *flow)
{
    for (;;) {
        size_t len = ofpbuf_tailroom(buffer);
        wye_status status = wye_flow_get(dp->engine, (const uint8_t *) ufid, ofpbuf_tail(buffer), &len, flow, NULL);

        if (!status) {
            dw_actions_for_ovs(CONST_CAST(struct nlattr *, (const struct nlattr *) flow->actions), flow->actions_len);
        }
        if (status != WYE_E_NO_SPACE) {
            return status;
        }
        ofpbuf_prealloc_tailroom(buffer, len);
    }
}

/* Refuses a flow that no packet of this provider's could match, since it has no connections. */
static int
check_match(const struct match *match)
{
    const struct flow *flow = &match->flow;
    const struct flow *mask = &match->wc.masks;
    ovs_u128 label = ovs_u128_and(flow->ct_label, mask->ct_label);

    if (flow->ct_state & mask->ct_state || flow->ct_zone & mask->ct_zone
        || flow->ct_mark & mask->ct_mark || !ovs_u128_is_zero(label) || flow->ct_nw_proto & mask->ct_nw_proto) {
        return EOPNOTSUPP;
    }
    return 0;
}

/* Installs or changes a flow. 'flags' are WYE_PUT_*; 'before' may be NULL. */
int
dw_flow_install(struct dw_dp *dp, struct match *match, const ovs_u128 *ufid, uint32_t flags, const struct nlattr *actions_,
                size_t actions_len, bool is_probe, struct dpif_flow_stats *before)
{
    struct wye_flow_request request = WYE_FLOW_REQUEST_INIT;
    struct wye_flow_stats stats = { .packets = 0 };
    struct ofpbuf key, mask, actions, old_buffer;
    struct wye_error *detail = NULL;
    struct wye_flow old;
    bool has_old = false;

    int error = check_match(match);
    if (error) {
        return error;
    }
    /* Attributes cannot say that a tag does not matter: a key without one matches packets without one. */
    if (!match->wc.masks.vlans[0].tci) {
        match->wc.masks.vlans[0].tci = htons(VLAN_VID_MASK | VLAN_CFI);
    }
    ofpbuf_init(&key, 512);
    ofpbuf_init(&mask, 512);
    ofpbuf_init(&old_buffer, 0);
    encode(match, &key, &mask);
    ofpbuf_init(&actions, actions_len);
    ofpbuf_put(&actions, actions_, actions_len);
    dw_actions_for_library(actions.data, actions_len);

    request.flags = flags;
    memcpy(request.ufid, ufid, sizeof request.ufid);
    request.key = key.data;
    request.key_len = key.size;
    request.mask = mask.data;
    request.mask_len = mask.size;
    request.actions = actions.data;
    request.actions_len = actions_len;

    ovs_mutex_lock(&dp->flow_mutex);
    bool is_change = find(dp, ufid) != NULL;
    if (is_change && vlog_is_enabled(dw_flow_log(), VLL_DBG)) {
        has_old = !read_flow(dp, ufid, &old_buffer, &old);
    }
    wye_status status = wye_flow_put(dp->engine, &request, &stats, &detail);
    if (!status && !is_change) {
        struct dw_flow_entry *entry = xzalloc(sizeof *entry);

        entry->ufid = *ufid;
        hmap_insert(&dp->flows, &entry->node, hash_bytes(ufid, sizeof *ufid, 0));
        ovs_list_push_back(&dp->flow_order, &entry->order);
    }
    ovs_mutex_unlock(&dp->flow_mutex);

    if (!status) {
        log_change(match, ufid, &key, &mask, has_old ? &old : NULL, actions_, actions_len);
        if (before) {
            write_stats(&stats, before);
        }
    } else if (!is_probe && status != WYE_E_EXISTS && status != WYE_E_MATCHED && status != WYE_E_NOT_FOUND) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(5, 5);

        VLOG_WARN_RL(&rl, "%s: a flow was refused: %s", dp->name, wye_error_message(detail));
    }
    ofpbuf_uninit(&key);
    ofpbuf_uninit(&mask);
    ofpbuf_uninit(&actions);
    ofpbuf_uninit(&old_buffer);
    return dw_errno(status, detail);
}

static int
read_key(const struct nlattr *key, size_t key_len, struct flow *flow)
{
    return odp_flow_key_to_flow(key, key_len, flow, NULL) ? EINVAL : 0;
}

/* The identifier of a flow that is named by 'ufid' or, if that is NULL, by its key. */
static int
identify(const ovs_u128 *ufid, const struct nlattr *key, size_t key_len, ovs_u128 *out)
{
    struct flow flow;

    if (ufid) {
        *out = *ufid;
        return 0;
    }
    if (!key_len || read_key(key, key_len, &flow)) {
        return EINVAL;
    }
    odp_flow_key_hash(&flow, sizeof flow, out);
    return 0;
}

int
dpif_wye_flow_put(struct dw_dp *dp, const struct dpif_flow_put *put)
{
    bool is_probe = put->flags & DPIF_FP_PROBE;
    struct match match;
    ovs_u128 ufid;
    int error;

    if (put->stats) {
        memset(put->stats, 0, sizeof *put->stats);
    }
    if (put->pmd_id != PMD_ID_NULL && put->pmd_id != DW_PMD_ID) {
        return EINVAL;
    }
    memset(&match, 0, sizeof match);
    error = read_key(put->key, put->key_len, &match.flow);
    if (error || odp_flow_key_to_mask(put->mask, put->mask_len, &match.wc, &match.flow, NULL)) {
        return EINVAL;
    }
    if (match.wc.masks.in_port.odp_port != ODPP_NONE) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

        VLOG_ERR_RL(&rl, "%s: refused flow: in_port is not an exact match", dp->name);
        return EINVAL;
    }
    error = identify(put->ufid, put->key, put->key_len, &ufid);
    if (error) {
        return error;
    }
    if (put->flags & DPIF_FP_CREATE) {
        /* Without an identifier a flow is there if its packets have one already. */
        uint32_t flags = WYE_PUT_CREATE | (put->ufid ? 0 : WYE_PUT_UNLESS_MATCHED);

        error = dw_flow_install(dp, &match, &ufid, flags, put->actions, put->actions_len, is_probe, NULL);
        /* What a probe is told if the answer is simply "no". */
        return is_probe && error == EOPNOTSUPP ? EINVAL : error;
    }
    if (!(put->flags & DPIF_FP_MODIFY)) {
        return 0;
    }
    uint32_t flags = WYE_PUT_MODIFY | (put->flags & DPIF_FP_ZERO_STATS ? WYE_PUT_ZERO_STATS : 0);
    error = dw_flow_install(dp, &match, &ufid, flags, put->actions, put->actions_len, is_probe, put->stats);
    if (error == ENOENT && !put->ufid) {
        uint8_t matched[WYE_UFID_LEN];
        bool overlaps = !wye_flow_match(dp->engine, put->key, put->key_len, matched, NULL);

        error = overlaps ? EINVAL : ENOENT;
    }
    return error;
}

static void
describe(const struct wye_flow *from, const ovs_u128 *ufid, bool terse, struct dpif_flow *to)
{
    memset(to, 0, sizeof *to);
    if (!terse) {
        to->key = from->key;
        to->key_len = from->key_len;
        to->mask = from->mask;
        to->mask_len = from->mask_len;
        to->actions = from->actions;
        to->actions_len = from->actions_len;
    }
    to->ufid = *ufid;
    to->ufid_present = true;
    to->pmd_id = DW_PMD_ID;
    to->attrs.dp_layer = "ovs";
    write_stats(&from->stats, &to->stats);
}

int
dpif_wye_flow_get(struct dw_dp *dp, const struct dpif_flow_get *get)
{
    struct wye_flow flow;
    ovs_u128 ufid;

    if (get->pmd_id != PMD_ID_NULL && get->pmd_id != DW_PMD_ID) {
        return EINVAL;
    }
    int error = identify(get->ufid, get->key, get->key_len, &ufid);
    if (!error) {
        error = dw_errno(read_flow(dp, &ufid, get->buffer, &flow), NULL);
    }
    if (!error) {
        describe(&flow, &ufid, false, get->flow);
    }
    return error;
}

int
dpif_wye_flow_del(struct dw_dp *dp, const struct dpif_flow_del *del)
{
    struct wye_flow_stats last;
    ovs_u128 ufid;

    if (del->stats) {
        memset(del->stats, 0, sizeof *del->stats);
    }
    if (del->pmd_id != PMD_ID_NULL && del->pmd_id != DW_PMD_ID) {
        return EINVAL;
    }
    int error = identify(del->ufid, del->key, del->key_len, &ufid);
    if (error) {
        return error;
    }
    ovs_mutex_lock(&dp->flow_mutex);
    error = dw_errno(wye_flow_del(dp->engine, (const uint8_t *) &ufid, &last, NULL), NULL);
    if (!error) {
        forget(dp, find(dp, &ufid));
        if (del->stats) {
            write_stats(&last, del->stats);
        }
    }
    ovs_mutex_unlock(&dp->flow_mutex);
    return error;
}

/* A walk: the identifiers of all flows that there were when it began, oldest first. Several threads take from it. */
struct flow_dump {
    struct dpif_flow_dump up;
    struct ovs_mutex mutex;
    ovs_u128 *ufids;
    size_t n;
    size_t next;
    bool terse;
};

struct flow_dump_thread {
    struct dpif_flow_dump_thread up;
    struct flow_dump *dump;
    struct ofpbuf buffers[DUMP_BATCH];
};

struct dpif_flow_dump *
dpif_wye_flow_dump_create(const struct dpif *dpif, bool terse, struct dpif_flow_dump_types *types OVS_UNUSED)
{
    struct dw_dp *dp = dw_dp_of(dpif);
    struct flow_dump *dump = xzalloc(sizeof *dump);
    struct dw_flow_entry *entry;

    dpif_flow_dump_init(&dump->up, dpif);
    ovs_mutex_init(&dump->mutex);
    dump->terse = terse;
    ovs_mutex_lock(&dp->flow_mutex);
    dump->ufids = xcalloc(MAX(hmap_count(&dp->flows), 1), sizeof *dump->ufids);
    LIST_FOR_EACH (entry, order, &dp->flow_order) {
        dump->ufids[dump->n++] = entry->ufid;
    }
    ovs_mutex_unlock(&dp->flow_mutex);
    return &dump->up;
}

int
dpif_wye_flow_dump_destroy(struct dpif_flow_dump *dump_)
{
    struct flow_dump *dump = CONTAINER_OF(dump_, struct flow_dump, up);

    ovs_mutex_destroy(&dump->mutex);
    free(dump->ufids);
    free(dump);
    return 0;
}

struct dpif_flow_dump_thread *
dpif_wye_flow_dump_thread_create(struct dpif_flow_dump *dump)
{
    struct flow_dump_thread *thread = xzalloc(sizeof *thread);

    dpif_flow_dump_thread_init(&thread->up, dump);
    thread->dump = CONTAINER_OF(dump, struct flow_dump, up);
    for (int i = 0; i < DUMP_BATCH; i++) {
        ofpbuf_init(&thread->buffers[i], 0);
    }
    return &thread->up;
}

void
dpif_wye_flow_dump_thread_destroy(struct dpif_flow_dump_thread *thread_)
{
    struct flow_dump_thread *thread = CONTAINER_OF(thread_, struct flow_dump_thread, up);

    for (int i = 0; i < DUMP_BATCH; i++) {
        ofpbuf_uninit(&thread->buffers[i]);
    }
    free(thread);
}

int
dpif_wye_flow_dump_next(struct dpif_flow_dump_thread *thread_, struct dpif_flow *flows, int max_flows)
{
    struct flow_dump_thread *thread = CONTAINER_OF(thread_, struct flow_dump_thread, up);
    struct flow_dump *dump = thread->dump;
    struct dw_dp *dp = dw_dp_of(thread->up.dpif);
    int n = 0;

    max_flows = MIN(max_flows, DUMP_BATCH);
    ovs_mutex_lock(&dump->mutex);
    while (n < max_flows && dump->next < dump->n) {
        const ovs_u128 *ufid = &dump->ufids[dump->next++];
        struct wye_flow flow;

        /* A flow that went meanwhile is left out. */
        if (!read_flow(dp, ufid, &thread->buffers[n], &flow)) {
            describe(&flow, ufid, dump->terse, &flows[n++]);
        }
    }
    ovs_mutex_unlock(&dump->mutex);
    return n;
}
