/* What the parts of dpif-wye share: names that begin with dw_; those that begin with wye_ are the library's. */

#ifndef DPIF_WYE_PRIVATE_H
#define DPIF_WYE_PRIVATE_H 1

#include "dp-packet.h"
#include "dpif.h"
#include "dpif-provider.h"
#include "fat-rwlock.h"
#include "openvswitch/hmap.h"
#include "odp-util.h"
#include "openvswitch/list.h"
#include "openvswitch/match.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "wye.h"

struct seq;
struct dw_carrier;

/* Every thread's flows are in one table: what reports a flow's thread says "the main thread". */
#define DW_PMD_ID NON_PMD_CORE_ID

/* Bytes in front of a packet that actions may push headers into: the outer headers of a tunnel, and what goes around those. */
#define DW_HEADROOM (TNL_PUSH_HEADER_SIZE + 128)

/* A datapath.
 *
 * Thread-safety: immutable first; then what 'mutex' guards, which is recursive, since Open vSwitch executes packets while it answers an upcall;
 * then what 'flow_mutex' guards, which is held for an instant and never while anything else is called but the library's flow functions. */
struct dw_dp {
    const struct dpif_class *class;
    char *name;
    struct wye_datapath *engine;
    struct ovs_refcount ref_cnt;
    atomic_flag destroyed;
    struct seq *port_seq;

    /* Readers answer upcalls; the writer turns them off. Begins write-locked. */
    struct fat_rwlock upcall_rwlock;
    upcall_callback *upcall_cb;
    void *upcall_aux;

    struct ovs_mutex mutex;
    struct hmap ports;               /* Of 'struct dw_port', by number. */
    struct ovs_list idle;            /* Of 'struct dw_carrier': those that carry nothing. */
    struct ovs_list carriers;        /* All of them. */
    unsigned int depth;              /* Carriers at work, one inside the other. */
    uint64_t n_missed;               /* Misses that Open vSwitch gave actions for. */
    uint64_t n_lost;                 /* Misses that it had none for, or no room. */
    long long int next_upkeep_ms;
    uint64_t last_tnl_conf_seq;

    struct ovs_mutex flow_mutex;
    struct hmap flows;               /* Of 'struct dw_flow_entry', by ufid. */
    struct ovs_list flow_order;      /* The same, oldest first. */
};

struct dw_dpif {
    struct dpif dpif;
    struct dw_dp *dp;
    uint64_t last_port_seq;
};

struct dw_dp *dw_dp_of(const struct dpif *);
int dw_errno(wye_status, struct wye_error *);
uint64_t dw_now_ns(void);

/* Where flow changes and upcalls are logged. */
struct vlog_module *dw_flow_log(void);
bool dw_is_takeover(void);
bool dw_class_is_dummy(const struct dpif_class *);

/* dpif-wye-port.c */
struct dw_port {
    struct hmap_node node;
    odp_port_t port_no;
    struct netdev *netdev;
    struct netdev_saved_flags *flags;
    struct netdev_rxq **rxqs;
    int n_rxq;
    char *type;
    bool is_tunnel;                  /* A vport: see dpif-wye-tunnel.c. */
    bool has_gbp;                    /* Of these: it was configured with "exts=gbp". */
};

struct dw_port *dw_port_lookup(const struct dw_dp *, odp_port_t) OVS_REQUIRES(dp->mutex);
int dw_port_create(struct dw_dp *, const char *devname, const char *type, odp_port_t, bool has_gbp) OVS_REQUIRES(dp->mutex);
void dw_port_destroy(struct dw_dp *, struct dw_port *) OVS_REQUIRES(dp->mutex);
void dw_ports_run(struct dw_dp *);
void dw_ports_wait(struct dw_dp *);
int dw_port_renumber(struct dw_dp *, const char *devname, odp_port_t, const char **reason);
int dpif_wye_port_add(struct dpif *, struct netdev *, odp_port_t *);
int dpif_wye_port_del(struct dpif *, odp_port_t);
int dpif_wye_port_query_by_number(const struct dpif *, odp_port_t, struct dpif_port *);
int dpif_wye_port_query_by_name(const struct dpif *, const char *, struct dpif_port *);
int dpif_wye_port_dump_start(const struct dpif *, void **);
int dpif_wye_port_dump_next(const struct dpif *, void *, struct dpif_port *);
int dpif_wye_port_dump_done(const struct dpif *, void *);
int dpif_wye_port_poll(const struct dpif *, char **);
void dpif_wye_port_poll_wait(const struct dpif *);

/* dpif-wye-flow.c */
void dw_flows_init(struct dw_dp *);
void dw_flows_destroy(struct dw_dp *);
int dw_flow_install(struct dw_dp *, struct match *, const ovs_u128 *ufid, uint32_t flags, const struct nlattr *actions, size_t actions_len,
                     bool is_probe, struct dpif_flow_stats *before);
int dpif_wye_flow_flush(struct dpif *);
int dpif_wye_flow_put(struct dw_dp *, const struct dpif_flow_put *);
int dpif_wye_flow_get(struct dw_dp *, const struct dpif_flow_get *);
int dpif_wye_flow_del(struct dw_dp *, const struct dpif_flow_del *);
struct dpif_flow_dump *dpif_wye_flow_dump_create(const struct dpif *, bool terse, struct dpif_flow_dump_types *);
int dpif_wye_flow_dump_destroy(struct dpif_flow_dump *);
struct dpif_flow_dump_thread *dpif_wye_flow_dump_thread_create(struct dpif_flow_dump *);
void dpif_wye_flow_dump_thread_destroy(struct dpif_flow_dump_thread *);
int dpif_wye_flow_dump_next(struct dpif_flow_dump_thread *, struct dpif_flow *, int max_flows);

/* What odp_flow_key_from_flow() is to write: everything. */
extern const struct odp_support dw_key_support;

/* The first of the numbers, one for each reason of a drop action, that no port of Open vSwitch's may have. */
#define DW_DROP_PORT 0xff00

/* dpif-wye-action.c: in place. */
void dw_actions_for_library(struct nlattr *, size_t len);
void dw_actions_for_ovs(struct nlattr *, size_t len);

/* dpif-wye-tunnel.c */
int dw_tunnel_set(struct dw_dp *, const struct dw_port *);
void dw_tunnel_del(struct dw_dp *, const struct dw_port *);
void dw_tunnel_of_key(const void *key, size_t key_len, struct flow_tnl *);
void dw_tunnel_put(const struct flow_tnl *, struct ofpbuf *actions);

/* dpif-wye-packet.c */
void dw_carry(struct dw_dp *, struct dp_packet_batch *, odp_port_t in_port) OVS_REQUIRES(dp->mutex);
int dw_drop_ports_create(struct dw_dp *);
int dw_carriers_create(struct dw_dp *) OVS_REQUIRES(dp->mutex);
void dw_carriers_destroy(struct dw_dp *);
uint64_t dw_carriers_hits(struct dw_dp *) OVS_REQUIRES(dp->mutex);
int dpif_wye_execute(struct dw_dp *, struct dpif_execute *);

/* dpif-wye-meter.c */
void dpif_wye_meter_get_features(const struct dpif *, struct ofputil_meter_features *);
int dpif_wye_meter_set(struct dpif *, ofproto_meter_id, struct ofputil_meter_config *);
int dpif_wye_meter_get(const struct dpif *, ofproto_meter_id, struct ofputil_meter_stats *, uint16_t n_bands);
int dpif_wye_meter_del(struct dpif *, ofproto_meter_id, struct ofputil_meter_stats *, uint16_t n_bands);
int dpif_wye_bond_add(struct dpif *, uint32_t bond_id, odp_port_t *member_map);
int dpif_wye_bond_del(struct dpif *, uint32_t bond_id);
int dpif_wye_bond_stats_get(struct dpif *, uint32_t bond_id, uint64_t *n_bytes);

#endif /* dpif-wye-private.h */
