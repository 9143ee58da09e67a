/* Actions: attributes mean the same to Open vSwitch and to the library, but for lb_output. It is no part of <linux/openvswitch.h>, and the number that Open
 * vSwitch gives it changes from version to version, so the library has a number of its own. */

#include <config.h>
#include "dpif-wye-private.h"
#include "netlink.h"
#include "odp-netlink.h"

/* OVS_ACTION_ATTR_LB_OUTPUT in the library's numbers. */
#define WYE_LB_OUTPUT 0x1002

/* Gives each action 'from', however deep, the number 'to'. */
static void
renumber(struct nlattr *actions, size_t len, uint16_t from, uint16_t to)
{
    struct nlattr *a, *b;
    size_t left, left_b;

    NL_ATTR_FOR_EACH_UNSAFE (a, left, actions, len) {
        uint16_t type = nl_attr_type(a);
        struct nlattr *nested = a + 1;
        size_t nested_len = nl_attr_get_size(a);

        if (type == from) {
            a->nla_type = to;
        } else if (type == OVS_ACTION_ATTR_CLONE) {
            renumber(nested, nested_len, from, to);
        } else if (type == OVS_ACTION_ATTR_SAMPLE || type == OVS_ACTION_ATTR_CHECK_PKT_LEN) {
            NL_ATTR_FOR_EACH_UNSAFE (b, left_b, nested, nested_len) {
                uint16_t part = nl_attr_type(b);

                if (type == OVS_ACTION_ATTR_SAMPLE ? part == OVS_SAMPLE_ATTR_ACTIONS : part != OVS_CHECK_PKT_LEN_ATTR_PKT_LEN) {
                    renumber(b + 1, nl_attr_get_size(b), from, to);
                }
            }
        }
    }
}

void
dw_actions_for_library(struct nlattr *actions, size_t len)
{
    renumber(actions, len, OVS_ACTION_ATTR_LB_OUTPUT, WYE_LB_OUTPUT);
}

void
dw_actions_for_ovs(struct nlattr *actions, size_t len)
{
    renumber(actions, len, WYE_LB_OUTPUT, OVS_ACTION_ATTR_LB_OUTPUT);
}
