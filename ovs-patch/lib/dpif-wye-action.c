/* Actions: attributes mean the same to Open vSwitch and to the library, but for two things.
 *
 * Those of userspace datapaths are no part of <linux/openvswitch.h>, and the numbers that Open vSwitch gives them change from version to version, so the
 * library has numbers of its own.
 *
 * Open vSwitch counts drops by the reason that an action drop(reason) has; to the library all are one. So it is given an output to a port
 * that stands for the reason, where the packets are counted and dropped. Both actions have four bytes. */

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

/* Makes drop(reason) an output or the other way round. */
static void
swap_drop(struct nlattr *a, bool for_library)
{
    uint16_t type = nl_attr_type(a);
    uint32_t *value = (uint32_t *) (a + 1);

    if (nl_attr_get_size(a) != sizeof *value) {
        return;
    }
    if (for_library && type == OVS_ACTION_ATTR_DROP && *value < XLATE_MAX) {
        a->nla_type = OVS_ACTION_ATTR_OUTPUT;
        *value += DW_DROP_PORT;
    } else if (!for_library && type == OVS_ACTION_ATTR_OUTPUT && *value >= DW_DROP_PORT && *value < DW_DROP_PORT + XLATE_MAX) {
        a->nla_type = OVS_ACTION_ATTR_DROP;
        *value -= DW_DROP_PORT;
    }
}

/* Gives each of these actions, however deep, the form of the other side. */
static void
translate(struct nlattr *actions, size_t len, bool for_library)
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
        swap_drop(a, for_library);
        if (type == OVS_ACTION_ATTR_CLONE) {
            translate(nested, nested_len, for_library);
        } else if (type == OVS_ACTION_ATTR_SAMPLE || type == OVS_ACTION_ATTR_CHECK_PKT_LEN) {
            NL_ATTR_FOR_EACH_UNSAFE (b, left_b, nested, nested_len) {
                uint16_t part = nl_attr_type(b);

                if (type == OVS_ACTION_ATTR_SAMPLE ? part == OVS_SAMPLE_ATTR_ACTIONS : part != OVS_CHECK_PKT_LEN_ATTR_PKT_LEN) {
                    translate(b + 1, nl_attr_get_size(b), for_library);
                }
            }
        }
    }
}

void
dw_actions_for_library(struct nlattr *actions, size_t len)
{
    translate(actions, len, true);
}

void
dw_actions_for_ovs(struct nlattr *actions, size_t len)
{
    translate(actions, len, false);
}
