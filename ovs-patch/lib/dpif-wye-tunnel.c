/* Tunnels: Open vSwitch's vports. They neither receive nor send. What comes in for one is taken out by the action tnl_pop, for which the library
 * knows the vport as a tunnel; what goes out gets its headers from tnl_push, which brings them along. */

#include <config.h>
#include "dpif-wye-private.h"
#include "netdev.h"
#include "netlink.h"
#include "odp-netlink.h"
#include "openvswitch/ofpbuf.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dpif_wye_tunnel);

/* The kind of tunnel of a vport's type; 0 for types that Open vSwitch's userspace has no headers for. */
static uint32_t
kind_of(const char *type)
{
    static const struct { const char *type; uint32_t kind; } kinds[] = {
        { "gre", WYE_TUNNEL_GRE },
        { "vxlan", WYE_TUNNEL_VXLAN },
        { "geneve", WYE_TUNNEL_GENEVE },
        { "erspan", WYE_TUNNEL_ERSPAN },
        { "ip6erspan", WYE_TUNNEL_IP6ERSPAN },
        { "ip6gre", WYE_TUNNEL_IP6GRE },
        { "gtpu", WYE_TUNNEL_GTPU },
        { "srv6", WYE_TUNNEL_SRV6 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!strcmp(type, kinds[i].type)) {
            return kinds[i].kind;
        }
    }
    return 0;
}

/* Tells the library of a vport. Everything is checked as dpif-netdev does; VXLAN packets with a group policy pass only if the vport was configured with
 * "exts=gbp". */
int
dw_tunnel_set(struct dw_dp *dp, const struct dw_port *port)
{
    struct wye_tunnel_config config = WYE_TUNNEL_CONFIG_INIT;
    struct wye_error *error = NULL;

    config.kind = kind_of(port->type);
    if (!config.kind) {
        VLOG_INFO("%s: tunnels of type %s have no headers in userspace: nothing will come in or go out", netdev_get_name(port->netdev),
                  port->type);
        return 0;
    }
    if (config.kind == WYE_TUNNEL_VXLAN) {
        config.flags = WYE_TUNNEL_WITH_GPE | (port->has_gbp ? WYE_TUNNEL_WITH_GBP : 0);
    }
    return dw_errno(wye_tunnel_set(dp->engine, odp_to_u32(port->port_no), &config, &error), error);
}

void
dw_tunnel_del(struct dw_dp *dp, const struct dw_port *port)
{
    wye_tunnel_del(dp->engine, odp_to_u32(port->port_no), NULL);
}

/* Reads what a packet's key says of the tunnel that it came out of. */
void
dw_tunnel_of_key(const void *key, size_t key_len, struct flow_tnl *tunnel)
{
    const struct nlattr *attribute = nl_attr_find__(key, key_len, OVS_KEY_ATTR_TUNNEL);

    if (attribute) {
        /* As far as pkt_metadata_init_tnl() would clear it: without a length options are not looked at. */
        memset(tunnel, 0, offsetof(struct flow_tnl, metadata.opts));
        odp_tun_key_from_attr(attribute, tunnel, NULL);
    }
}

/* An action that gives a packet this metadata, for the library, which has no place for it in a packet's descriptor. */
void
dw_tunnel_put(const struct flow_tnl *tunnel, struct ofpbuf *actions)
{
    if (flow_tnl_dst_is_set(tunnel)) {
        odp_put_tunnel_action(tunnel, actions, NULL);
    }
}
