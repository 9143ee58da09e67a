/* Ports: Open vSwitch's netdevs, which the main thread receives from. To the library they are ports of its caller's. */

#include <config.h>
#include <ctype.h>
#include <errno.h>
#include "dpif-wye-private.h"
#include "hash.h"
#include "netdev.h"
#include "netdev-provider.h"
#include "netdev-vport.h"
#include "odp-netlink.h"
#include "openvswitch/poll-loop.h"
#include "seq.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dpif_wye_port);

static uint32_t
hash_port(odp_port_t port_no)
{
    return hash_int(odp_to_u32(port_no), 0);
}

struct dw_port *
dw_port_lookup(const struct dw_dp *dp, odp_port_t port_no)
{
    struct dw_port *port;

    HMAP_FOR_EACH_WITH_HASH (port, node, hash_port(port_no), &dp->ports) {
        if (port->port_no == port_no) {
            return port;
        }
    }
    return NULL;
}

static struct dw_port *
find_by_name(const struct dw_dp *dp, const char *devname)
{
    struct dw_port *port;

    HMAP_FOR_EACH (port, node, &dp->ports) {
        if (!strcmp(netdev_get_name(port->netdev), devname)) {
            return port;
        }
    }
    return NULL;
}

static void
close_rxqs(struct dw_port *port)
{
    for (int i = 0; i < port->n_rxq; i++) {
        netdev_rxq_close(port->rxqs[i]);
    }
    free(port->rxqs);
    port->rxqs = NULL;
    port->n_rxq = 0;
}

/* Applies the netdev's pending configuration, and opens its receive queues. */
static int
configure(struct dw_port *port)
{
    int error;

    close_rxqs(port);
    netdev_set_tx_multiq(port->netdev, 1);
    error = netdev_reconfigure(port->netdev);
    if (error && error != EOPNOTSUPP) {
        VLOG_ERR("%s: cannot be configured: %s", netdev_get_name(port->netdev), ovs_strerror(error));
        return error;
    }
    int n = netdev_n_rxq(port->netdev);
    port->rxqs = xcalloc(n, sizeof *port->rxqs);
    for (int i = 0; i < n; i++) {
        error = netdev_rxq_open(port->netdev, &port->rxqs[i], i);
        if (error) {
            VLOG_ERR("%s: cannot receive packets: %s", netdev_get_name(port->netdev), ovs_strerror(error));
            return error;
        }
        port->n_rxq++;
    }
    return 0;
}

static void
free_port(struct dw_port *port)
{
    close_rxqs(port);
    netdev_restore_flags(port->flags);
    netdev_close(port->netdev);
    free(port->type);
    free(port);
}

static int
tell_engine(struct dw_dp *dp, struct dw_port *port)
{
    struct wye_port_config config = WYE_PORT_CONFIG_INIT;
    struct wye_error *error = NULL;

    if (port->is_tunnel) {
        return dw_tunnel_set(dp, port);
    }
    config.number = odp_to_u32(port->port_no);
    config.name = netdev_get_name(port->netdev);
    return dw_errno(wye_port_add(dp->engine, &config, &error), error);
}

static void
untell_engine(struct dw_dp *dp, struct dw_port *port)
{
    if (port->is_tunnel) {
        dw_tunnel_del(dp, port);
    } else {
        wye_port_del(dp->engine, odp_to_u32(port->port_no), NULL);
    }
}

int
dw_port_create(struct dw_dp *dp, const char *devname, const char *type, odp_port_t port_no, bool has_gbp)
{
    struct dw_port *port;
    enum netdev_flags flags;
    int error;

    if (find_by_name(dp, devname)) {
        return EEXIST;
    }
    if (odp_to_u32(port_no) >= DW_DROP_PORT) {
        VLOG_WARN("%s: port number %"PRIu32" is not below %d", devname, port_no, DW_DROP_PORT);
        return ERANGE;
    }
    port = xzalloc(sizeof *port);
    port->port_no = port_no;
    port->type = xstrdup(type);
    error = netdev_open(devname, type, &port->netdev);
    if (error) {
        free(port->type);
        free(port);
        return error;
    }
    port->is_tunnel = netdev_vport_is_vport_class(port->netdev->netdev_class);
    port->has_gbp = has_gbp;
    if (!netdev_get_flags(port->netdev, &flags) && flags & NETDEV_LOOPBACK) {
        VLOG_ERR("%s: cannot add a loopback device", devname);
        error = EINVAL;
    }
    error = error ? error : configure(port);
    error = error ? error : tell_engine(dp, port);
    if (error) {
        free_port(port);
        return error;
    }
    hmap_insert(&dp->ports, &port->node, hash_port(port_no));
    seq_change(dp->port_seq);
    /* Last: a change of flags makes Open vSwitch look at the port again, and it must find it then. */
    error = netdev_turn_flags_on(port->netdev, NETDEV_PROMISC, &port->flags);
    if (error) {
        VLOG_ERR("%s: cannot be made promiscuous: %s", devname, ovs_strerror(error));
        dw_port_destroy(dp, port);
    }
    return error;
}

void
dw_port_destroy(struct dw_dp *dp, struct dw_port *port)
{
    hmap_remove(&dp->ports, &port->node);
    untell_engine(dp, port);
    seq_change(dp->port_seq);
    free_port(port);
}

/* A free number for a port. With dummies it is the number in the port's name, 100 more if that begins with "br", so that those who write
 * tests know it. */
static odp_port_t
choose_number(const struct dw_dp *dp, const char *devname)
{
    if (dw_class_is_dummy(dp->class)) {
        const char *digits = devname + strcspn(devname, "0123456789");

        if (*digits) {
            unsigned long int number = strtoul(digits, NULL, 10) + (strncmp(devname, "br", 2) ? 0 : 100);

            if (number > 0 && number < DW_DROP_PORT && !dw_port_lookup(dp, u32_to_odp(number))) {
                return u32_to_odp(number);
            }
        }
    }
    for (uint32_t number = 1; number < DW_DROP_PORT; number++) {
        if (!dw_port_lookup(dp, u32_to_odp(number))) {
            return u32_to_odp(number);
        }
    }
    return ODPP_NONE;
}

int
dpif_wye_port_add(struct dpif *dpif, struct netdev *netdev, odp_port_t *port_nop)
{
    char buffer[NETDEV_VPORT_NAME_BUFSIZE];
    const char *devname = netdev_vport_get_dpif_port(netdev, buffer, sizeof buffer);
    struct dw_dp *dp = dw_dp_of(dpif);
    const struct netdev_tunnel_config *tunnel = netdev_get_tunnel_config(netdev);
    odp_port_t port_no = *port_nop;
    int error = 0;

    ovs_mutex_lock(&dp->mutex);
    if (port_no == ODPP_NONE) {
        port_no = choose_number(dp, devname);
        error = port_no == ODPP_NONE ? EFBIG : 0;
    } else if (dw_port_lookup(dp, port_no)) {
        error = EBUSY;
    }
    if (!error) {
        bool has_gbp = tunnel && tunnel->exts & (1 << OVS_VXLAN_EXT_GBP);

        error = dw_port_create(dp, devname, netdev_get_type(netdev), port_no, has_gbp);
    }
    if (!error) {
        *port_nop = port_no;
    }
    ovs_mutex_unlock(&dp->mutex);
    return error;
}

int
dpif_wye_port_del(struct dpif *dpif, odp_port_t port_no)
{
    struct dw_dp *dp = dw_dp_of(dpif);
    int error = EINVAL;

    if (port_no != ODPP_LOCAL) {
        ovs_mutex_lock(&dp->mutex);
        struct dw_port *port = dw_port_lookup(dp, port_no);
        error = port ? 0 : ENODEV;
        if (port) {
            dw_port_destroy(dp, port);
        }
        ovs_mutex_unlock(&dp->mutex);
    }
    return error;
}

/* Gives a port another number. */
int
dw_port_renumber(struct dw_dp *dp, const char *devname, odp_port_t port_no, const char **reason)
{
    int error = EINVAL;

    ovs_mutex_lock(&dp->mutex);
    struct dw_port *port = find_by_name(dp, devname);
    if (!port) {
        *reason = "unknown port";
    } else if (port_no == ODPP_LOCAL || odp_to_u32(port_no) >= DW_DROP_PORT) {
        *reason = "bad port number";
    } else if (dw_port_lookup(dp, port_no)) {
        *reason = "port number already in use";
    } else {
        hmap_remove(&dp->ports, &port->node);
        untell_engine(dp, port);
        port->port_no = port_no;
        hmap_insert(&dp->ports, &port->node, hash_port(port_no));
        error = tell_engine(dp, port);
        *reason = error ? "the library refused the new number" : NULL;
        seq_change(dp->port_seq);
    }
    ovs_mutex_unlock(&dp->mutex);
    return error;
}

static void
describe(const struct dw_port *port, struct dpif_port *out)
{
    if (out) {
        out->name = xstrdup(netdev_get_name(port->netdev));
        out->type = xstrdup(port->type);
        out->port_no = port->port_no;
    }
}

int
dpif_wye_port_query_by_number(const struct dpif *dpif, odp_port_t port_no, struct dpif_port *out)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    ovs_mutex_lock(&dp->mutex);
    struct dw_port *port = port_no == ODPP_NONE ? NULL : dw_port_lookup(dp, port_no);
    if (port) {
        describe(port, out);
    }
    ovs_mutex_unlock(&dp->mutex);
    return port ? 0 : ENODEV;
}

int
dpif_wye_port_query_by_name(const struct dpif *dpif, const char *devname, struct dpif_port *out)
{
    struct dw_dp *dp = dw_dp_of(dpif);

    ovs_mutex_lock(&dp->mutex);
    struct dw_port *port = find_by_name(dp, devname);
    if (port) {
        describe(port, out);
    }
    ovs_mutex_unlock(&dp->mutex);
    return port ? 0 : ENODEV;
}

struct port_dump {
    struct hmap_position position;
    char *name;
    char *type;
};

int
dpif_wye_port_dump_start(const struct dpif *dpif OVS_UNUSED, void **statep)
{
    *statep = xzalloc(sizeof(struct port_dump));
    return 0;
}

int
dpif_wye_port_dump_next(const struct dpif *dpif, void *state, struct dpif_port *out)
{
    struct dw_dp *dp = dw_dp_of(dpif);
    struct port_dump *dump = state;
    int error = EOF;

    ovs_mutex_lock(&dp->mutex);
    struct hmap_node *node = hmap_at_position(&dp->ports, &dump->position);
    if (node) {
        struct dw_port *port = CONTAINER_OF(node, struct dw_port, node);

        free(dump->name);
        free(dump->type);
        describe(port, out);
        dump->name = out->name;
        dump->type = out->type;
        error = 0;
    }
    ovs_mutex_unlock(&dp->mutex);
    return error;
}

int
dpif_wye_port_dump_done(const struct dpif *dpif OVS_UNUSED, void *state)
{
    struct port_dump *dump = state;

    free(dump->name);
    free(dump->type);
    free(dump);
    return 0;
}

int
dpif_wye_port_poll(const struct dpif *dpif, char **devnamep OVS_UNUSED)
{
    struct dw_dpif *this = CONTAINER_OF(dpif, struct dw_dpif, dpif);
    uint64_t now = seq_read(this->dp->port_seq);

    if (this->last_port_seq == now) {
        return EAGAIN;
    }
    this->last_port_seq = now;
    return ENOBUFS;
}

void
dpif_wye_port_poll_wait(const struct dpif *dpif)
{
    struct dw_dpif *this = CONTAINER_OF(dpif, struct dw_dpif, dpif);

    seq_wait(this->dp->port_seq, this->last_port_seq);
}

/* One burst of every queue of every port. */
void
dw_ports_run(struct dw_dp *dp)
{
    struct dw_port *port;

    ovs_mutex_lock(&dp->mutex);
    HMAP_FOR_EACH (port, node, &dp->ports) {
        if (netdev_is_reconf_required(port->netdev)) {
            configure(port);
        }
        for (int i = 0; i < port->n_rxq; i++) {
            struct dp_packet_batch batch;

            dp_packet_batch_init(&batch);
            int error = netdev_rxq_recv(port->rxqs[i], &batch, NULL);
            if (!error) {
                dw_carry(dp, &batch, port->port_no);
            } else if (error != EAGAIN && error != EOPNOTSUPP) {
                static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

                VLOG_ERR_RL(&rl, "%s: cannot receive: %s", netdev_get_name(port->netdev), ovs_strerror(error));
            }
        }
    }
    ovs_mutex_unlock(&dp->mutex);
}

void
dw_ports_wait(struct dw_dp *dp)
{
    struct dw_port *port;

    ovs_mutex_lock(&dp->mutex);
    HMAP_FOR_EACH (port, node, &dp->ports) {
        netdev_wait_reconf_required(port->netdev);
        for (int i = 0; i < port->n_rxq; i++) {
            netdev_rxq_wait(port->rxqs[i]);
        }
    }
    ovs_mutex_unlock(&dp->mutex);
}
