/* Actions: attributes mean the same to Open vSwitch and to the library, but for those of userspace datapaths. They are no part of
 * <linux/openvswitch.h>, and the numbers that Open vSwitch gives them change from version to version, so the library has numbers of its own. */

#include <config.h>
#include "dpif-wye-private.h"
#include "netlink.h"
#include "odp-netlink.h"
#include "util.h"

struct number {
    uint16_t ovs;
    uint16_t library;
};

static const struct number numbers[] = {
    { OVS_ACTION_ATTR_TUNNEL_PUSH, 0x1000 },
    { OVS_ACTION_ATTR_TUNNEL_POP, 0x1001 },
    { OVS_ACTION_ATTR_LB_OUTPUT, 0x1002 },
};

/* Gives each of these actions, however deep, the number of the other side. */
static void
renumber(struct nlattr *actions, size_t len, bool for_library)
{
    struct nlattr *a, *b;
    size_t left, left_b;

    NL_ATTR_FOR_EACH_UNSAFE (a, left, actions, len) {
        uint16_t type = nl_attr_type(a);
        struct nlattr *nested = a + 1;
        size_t nested_len = nl_attr_get_size(a);

        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
            if (type == (for_library ? numbers[i].ovs : numbers[i].library)) {
                a->nla_type = for_library ? numbers[i].library : numbers[i].ovs;
            }
        }
        if (type == OVS_ACTION_ATTR_CLONE) {
            renumber(nested, nested_len, for_library);
        } else if (type == OVS_ACTION_ATTR_SAMPLE || type == OVS_ACTION_ATTR_CHECK_PKT_LEN) {
            NL_ATTR_FOR_EACH_UNSAFE (b, left_b, nested, nested_len) {
                uint16_t part = nl_attr_type(b);

                if (type == OVS_ACTION_ATTR_SAMPLE ? part == OVS_SAMPLE_ATTR_ACTIONS : part != OVS_CHECK_PKT_LEN_ATTR_PKT_LEN) {
                    renumber(b + 1, nl_attr_get_size(b), for_library);
                }
            }
        }
    }
}

void
dw_actions_for_library(struct nlattr *actions, size_t len)
{
    renumber(actions, len, true);
}

void
dw_actions_for_ovs(struct nlattr *actions, size_t len)
{
    renumber(actions, len, false);
}
