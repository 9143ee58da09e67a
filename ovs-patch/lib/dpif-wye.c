/* The class: datapaths that come and go, and what Open vSwitch calls.
 *
 * Out of this provider's reach: connection tracking, PMD threads, offload. Their hooks are NULL, and flows and actions that need them
 * are refused, so that Open vSwitch's probes find them missing. */

#include <config.h>
#include "dpif-wye.h"
#include <errno.h>
#include <stdlib.h>
#include "dpif-wye-private.h"
#include "flow.h"
#include "hash.h"
#include "netdev.h"
#include "openvswitch/shash.h"
#include "packets.h"
#include "seq.h"
#include "sset.h"
#include "timeval.h"
#include "tnl-neigh-cache.h"
#include "tnl-ports.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dpif_wye);

/* Flows of one datapath: more than Open vSwitch's own limit. */
#define FLOWS_MAX (256 * 1024)

/* Buffers for copies of packets, and their bytes: the longest packet that Open vSwitch executes, and room for headers. */
#define BUFFERS 2048
#define BUFFER_LEN (UINT16_MAX + 1 + DW_HEADROOM)

static struct ovs_mutex datapaths_mutex = OVS_MUTEX_INITIALIZER;
static struct shash datapaths OVS_GUARDED_BY(datapaths_mutex) = SHASH_INITIALIZER(&datapaths);

static struct dpif_class netdev_class;       /* Type "netdev", with OVS_DPIF_TAKEOVER=1. */
static struct vlog_module *flow_log;

bool
dw_is_takeover(void)
{
    const char *takeover = getenv("OVS_DPIF_TAKEOVER");

    return takeover && !strcmp(takeover, "1");
}

struct vlog_module *
dw_flow_log(void)
{
    return flow_log;
}

bool
dw_class_is_dummy(const struct dpif_class *class)
{
    return class != &dpif_wye_class && class != &netdev_class;
}

struct dw_dp *
dw_dp_of(const struct dpif *dpif)
{
    ovs_assert(dpif_is_wye(dpif));
    return CONTAINER_OF(dpif, struct dw_dpif, dpif)->dp;
}

/* Never 0, which is no time to the library. Follows a test's clock. */
uint64_t
dw_now_ns(void)
{
    long long int now_us = time_usec();

    return now_us > 0 ? now_us * 1000ULL : 1;
}

/* A status as an errno value. Frees 'error'. */
int
dw_errno(wye_status status, struct wye_error *error)
{
    wye_error_free(error);
    return wye_status_to_errno(status);
}

static void
log_line(void *ctx OVS_UNUSED, uint32_t level, const char *message)
{
    if (level == WYE_LOG_ERROR) {
        VLOG_ERR("libwye: %s", message);
    } else {
        VLOG_WARN("libwye: %s", message);
    }
}

static int
init(void)
{
    struct wye_error *error = NULL;

    if (!flow_log) {
        /* With the takeover, tests look for lines of dpif-netdev's. */
        flow_log = dw_is_takeover() ? vlog_module_from_name("dpif_netdev") : NULL;
        flow_log = flow_log ? flow_log : &this_module;
    }
    wye_status status = wye_version_check(WYE_API_VERSION, &error);
    if (status) {
        VLOG_ERR("libwye: %s", wye_error_message(error));
    }
    return dw_errno(status, error);
}

static int
enumerate(struct sset *names, const struct dpif_class *class)
{
    struct shash_node *node;

    ovs_mutex_lock(&datapaths_mutex);
    SHASH_FOR_EACH (node, &datapaths) {
        struct dw_dp *dp = node->data;

        if (dp->class == class) {
            sset_add(names, node->name);
        }
    }
    ovs_mutex_unlock(&datapaths_mutex);
    return 0;
}

static const char *
port_open_type(const struct dpif_class *class, const char *type)
{
    if (strcmp(type, "internal")) {
        return type;
    }
    return dw_class_is_dummy(class) ? "dummy-internal" : "tap";
}

static void
free_dp(struct dw_dp *dp)
    OVS_REQUIRES(datapaths_mutex)
    OVS_NO_THREAD_SAFETY_ANALYSIS
{
    struct dw_port *port;

    shash_find_and_delete(&datapaths, dp->name);
    ovs_mutex_lock(&dp->mutex);
    HMAP_FOR_EACH_SAFE (port, node, &dp->ports) {
        dw_port_destroy(dp, port);
    }
    ovs_mutex_unlock(&dp->mutex);
    dw_carriers_destroy(dp);
    dw_flows_destroy(dp);
    wye_datapath_free(dp->engine);
    hmap_destroy(&dp->ports);
    seq_destroy(dp->port_seq);
    /* Upcalls are off, which is to say that the lock is taken. */
    fat_rwlock_unlock(&dp->upcall_rwlock);
    fat_rwlock_destroy(&dp->upcall_rwlock);
    ovs_mutex_destroy(&dp->mutex);
    free(dp->name);
    free(dp);
}

static int
create_dp(const struct dpif_class *class, const char *name, struct dw_dp **dpp)
    OVS_REQUIRES(datapaths_mutex)
    OVS_NO_THREAD_SAFETY_ANALYSIS
{
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    struct wye_error *detail = NULL;
    struct wye_datapath *engine;

    config.flows_max = FLOWS_MAX;
    config.pool_buffers = BUFFERS;
    config.buffer_len = BUFFER_LEN;
    config.headroom = DW_HEADROOM;
    config.vlan_limit = MIN(MAX(flow_vlan_limit, 1), FLOW_MAX_VLAN_HEADERS);
    config.log = log_line;
    wye_status status = wye_datapath_new(&config, &engine, &detail);
    if (status) {
        VLOG_ERR("%s: libwye makes no datapath: %s", name, wye_error_message(detail));
        return dw_errno(status, detail);
    }
    struct dw_dp *dp = xzalloc(sizeof *dp);

    dp->class = class;
    dp->name = xstrdup(name);
    dp->engine = engine;
    ovs_refcount_init(&dp->ref_cnt);
    atomic_flag_clear(&dp->destroyed);
    dp->port_seq = seq_create();
    fat_rwlock_init(&dp->upcall_rwlock);
    fat_rwlock_wrlock(&dp->upcall_rwlock);
    ovs_mutex_init_recursive(&dp->mutex);
    hmap_init(&dp->ports);
    ovs_list_init(&dp->idle);
    ovs_list_init(&dp->carriers);
    dp->last_tnl_conf_seq = seq_read(tnl_conf_seq);
    dw_flows_init(dp);
    shash_add(&datapaths, name, dp);

    ovs_mutex_lock(&dp->mutex);
    int error = dw_carriers_create(dp);
    error = error ? error : dw_drop_ports_create(dp);
    error = error ? error : dw_port_create(dp, name, port_open_type(class, "internal"), ODPP_LOCAL, false);
    ovs_mutex_unlock(&dp->mutex);
    if (error) {
        free_dp(dp);
        return error;
    }
    *dpp = dp;
    return 0;
}

static void
unref(struct dw_dp *dp)
{
    ovs_mutex_lock(&datapaths_mutex);
    if (ovs_refcount_unref_relaxed(&dp->ref_cnt) == 1) {
        free_dp(dp);
    }
    ovs_mutex_unlock(&datapaths_mutex);
}

static int
dpif_wye_open(const struct dpif_class *class, const char *name, bool create, struct dpif **dpifp)
{
    int error = 0;

    ovs_mutex_lock(&datapaths_mutex);
    struct dw_dp *dp = shash_find_data(&datapaths, name);
    if (!dp) {
        error = create ? create_dp(class, name, &dp) : ENODEV;
    } else if (dp->class != class) {
        error = EINVAL;
    } else if (create) {
        error = EEXIST;
    }
    if (!error) {
        struct dw_dpif *dpif = xzalloc(sizeof *dpif);
        uint16_t netflow_id = hash_string(name, 0);

        ovs_refcount_ref(&dp->ref_cnt);
        dpif_init(&dpif->dpif, class, name, netflow_id >> 8, netflow_id);
        dpif->dp = dp;
        dpif->last_port_seq = seq_read(dp->port_seq);
        *dpifp = &dpif->dpif;
    }
    ovs_mutex_unlock(&datapaths_mutex);
    return error;
}

static void
dpif_wye_close(struct dpif *dpif)
{
    unref(dw_dp_of(dpif));
    free(CONTAINER_OF(dpif, struct dw_dpif, dpif));
}

/* Drops the reference that the datapath has of itself; 'dpif' has another. */
static int
dpif_wye_destroy(struct dpif *dpif)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    if (!atomic_flag_test_and_set(&dp->destroyed)) {
        ovs_assert(ovs_refcount_unref_relaxed(&dp->ref_cnt) > 1);
    }
    return 0;
}

static bool
dpif_wye_run(struct dpif *dpif)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    dw_ports_run(dp);
    if (time_msec() >= dp->next_upkeep_ms) {
        dp->next_upkeep_ms = time_msec() + 1000;
        wye_datapath_upkeep(dp->engine, dw_now_ns(), 0, NULL, NULL, NULL);
    }
    tnl_neigh_cache_run();
    tnl_port_map_run();
    uint64_t tunnels = seq_read(tnl_conf_seq);
    bool is_changed = dp->last_tnl_conf_seq != tunnels;
    dp->last_tnl_conf_seq = tunnels;
    return is_changed;
}

static void
dpif_wye_wait(struct dpif *dpif)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    dw_ports_wait(dp);
    seq_wait(tnl_conf_seq, dp->last_tnl_conf_seq);
}

static int
dpif_wye_get_stats(const struct dpif *dpif, struct dpif_dp_stats *stats)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    ovs_mutex_lock(&dp->mutex);
    stats->n_hit = dw_carriers_hits(dp);
    stats->n_missed = dp->n_missed;
    stats->n_lost = dp->n_lost;
    ovs_mutex_unlock(&dp->mutex);
    stats->n_flows = wye_flow_count(dp->engine);
    /* "Not known". */
    stats->n_masks = UINT32_MAX;
    stats->n_mask_hit = UINT64_MAX;
    stats->n_cache_hit = UINT64_MAX;
    return 0;
}

static void
dpif_wye_operate(struct dpif *dpif, struct dpif_op **ops, size_t n_ops, enum dpif_offload_type offload_type OVS_UNUSED)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    for (size_t i = 0; i < n_ops; i++) {
        struct dpif_op *op = ops[i];

        switch (op->type) {
        case DPIF_OP_FLOW_PUT:
            op->error = dpif_wye_flow_put(dp, &op->flow_put);
            break;
        case DPIF_OP_FLOW_DEL:
            op->error = dpif_wye_flow_del(dp, &op->flow_del);
            break;
        case DPIF_OP_FLOW_GET:
            op->error = dpif_wye_flow_get(dp, &op->flow_get);
            break;
        case DPIF_OP_EXECUTE:
            op->error = dpif_wye_execute(dp, &op->execute);
            break;
        }
    }
}

static bool
number_handlers_required(struct dpif *dpif OVS_UNUSED, uint32_t *n_handlers)
{
    *n_handlers = 0;
    return true;
}

static int
queue_to_priority(const struct dpif *dpif OVS_UNUSED, uint32_t queue_id, uint32_t *priority)
{
    *priority = queue_id;
    return 0;
}

static void
register_upcall_cb(struct dpif *dpif, upcall_callback *cb, void *aux)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    dp->upcall_aux = aux;
    dp->upcall_cb = cb;
}

static void
enable_upcall(struct dpif *dpif)
    OVS_NO_THREAD_SAFETY_ANALYSIS
{
    fat_rwlock_unlock(&dw_dp_of(dpif)->upcall_rwlock);
}

/* Returns when no upcall is being answered any more. */
static void
disable_upcall(struct dpif *dpif)
    OVS_NO_THREAD_SAFETY_ANALYSIS
{
    fat_rwlock_wrlock(&dw_dp_of(dpif)->upcall_rwlock);
}

static char *
get_datapath_version(void)
{
    return dw_is_takeover() ? xstrdup("<built-in>") : xasprintf("libwye %s", wye_version());
}

const struct dpif_class dpif_wye_class = {
    .type = "wye",
    .cleanup_required = true,
    .synced_dp_layers = true,
    .init = init,
    .enumerate = enumerate,
    .port_open_type = port_open_type,
    .open = dpif_wye_open,
    .close = dpif_wye_close,
    .destroy = dpif_wye_destroy,
    .run = dpif_wye_run,
    .wait = dpif_wye_wait,
    .get_stats = dpif_wye_get_stats,
    .port_add = dpif_wye_port_add,
    .port_del = dpif_wye_port_del,
    .port_query_by_number = dpif_wye_port_query_by_number,
    .port_query_by_name = dpif_wye_port_query_by_name,
    .port_dump_start = dpif_wye_port_dump_start,
    .port_dump_next = dpif_wye_port_dump_next,
    .port_dump_done = dpif_wye_port_dump_done,
    .port_poll = dpif_wye_port_poll,
    .port_poll_wait = dpif_wye_port_poll_wait,
    .flow_flush = dpif_wye_flow_flush,
    .flow_dump_create = dpif_wye_flow_dump_create,
    .flow_dump_destroy = dpif_wye_flow_dump_destroy,
    .flow_dump_thread_create = dpif_wye_flow_dump_thread_create,
    .flow_dump_thread_destroy = dpif_wye_flow_dump_thread_destroy,
    .flow_dump_next = dpif_wye_flow_dump_next,
    .operate = dpif_wye_operate,
    .number_handlers_required = number_handlers_required,
    .queue_to_priority = queue_to_priority,
    .register_upcall_cb = register_upcall_cb,
    .enable_upcall = enable_upcall,
    .disable_upcall = disable_upcall,
    .get_datapath_version = get_datapath_version,
    .meter_get_features = dpif_wye_meter_get_features,
    .meter_set = dpif_wye_meter_set,
    .meter_get = dpif_wye_meter_get,
    .meter_del = dpif_wye_meter_del,
    .bond_add = dpif_wye_bond_add,
    .bond_del = dpif_wye_bond_del,
    .bond_stats_get = dpif_wye_bond_stats_get,
};

bool
dpif_is_wye(const struct dpif *dpif)
{
    return dpif->dpif_class->open == dpif_wye_open;
}

const struct dpif_class *
dpif_wye_takeover(const struct dpif_class *class)
{
    if (strcmp(class->type, "netdev") || !dw_is_takeover()) {
        return class;
    }
    netdev_class = dpif_wye_class;
    netdev_class.type = "netdev";
    return &netdev_class;
}

static void
register_dummy(const char *type)
{
    struct dpif_class *class = xmemdup(&dpif_wye_class, sizeof dpif_wye_class);

    class->type = xstrdup(type);
    dp_register_provider(class);
}

static void
override(const char *type)
{
    int error = dp_unregister_provider(type);

    if (!error || error == EAFNOSUPPORT) {
        register_dummy(type);
    }
}

static void
change_port_number(struct unixctl_conn *conn, int argc OVS_UNUSED, const char *argv[], void *aux OVS_UNUSED)
{
    const char *reason = "unknown datapath or not a dummy";

    ovs_mutex_lock(&datapaths_mutex);
    struct dw_dp *dp = shash_find_data(&datapaths, argv[1]);
    if (dp && dw_class_is_dummy(dp->class)) {
        dw_port_renumber(dp, argv[2], u32_to_odp(atoi(argv[3])), &reason);
    }
    ovs_mutex_unlock(&datapaths_mutex);
    if (reason) {
        unixctl_command_reply_error(conn, reason);
    } else {
        unixctl_command_reply(conn, NULL);
    }
}

bool
dpif_wye_dummy_register(enum dummy_level level)
{
    if (!dw_is_takeover()) {
        return false;
    }
    if (level == DUMMY_OVERRIDE_ALL) {
        struct sset types = SSET_INITIALIZER(&types);
        const char *type;

        dp_enumerate_types(&types);
        SSET_FOR_EACH (type, &types) {
            override(type);
        }
        sset_destroy(&types);
    } else if (level == DUMMY_OVERRIDE_SYSTEM) {
        override("system");
    }
    register_dummy("dummy");
    unixctl_command_register("dpif-dummy/change-port-number", "dp port new-number", 3, 3, change_port_number, NULL);
    return true;
}
