/* dpif-wye: an Open vSwitch datapath whose packets are carried by libwye. */

#ifndef DPIF_WYE_H
#define DPIF_WYE_H 1

#include <stdbool.h>
#include "dummy.h"

struct dpif;
struct dpif_class;

/* Datapath type "wye". */
extern const struct dpif_class dpif_wye_class;

/* Whether 'dpif' is a datapath of this provider, of whatever type. */
bool dpif_is_wye(const struct dpif *dpif);

/* With the environment variable OVS_DPIF_TAKEOVER=1 this provider serves the types "netdev" and "dummy", so that Open vSwitch's own tests
 * run on it as they are. Returns the class to register instead of 'class'. */
const struct dpif_class *dpif_wye_takeover(const struct dpif_class *class);

/* As dpif_dummy_register(), if OVS_DPIF_TAKEOVER=1; else does nothing and returns false. */
bool dpif_wye_dummy_register(enum dummy_level level);

/* Drops that have a coverage counter, "datapath_drop_meter" and so on. */
enum dpif_wye_drop {
    DPIF_WYE_DROP_RX_INVALID_PACKET,
    DPIF_WYE_DROP_METER,
    DPIF_WYE_DROP_RECIRC_ERROR,
    DPIF_WYE_DROP_INVALID_PORT,
    DPIF_WYE_DROP_INVALID_BOND,
    DPIF_WYE_DROP_UPCALL_ERROR,
    DPIF_WYE_DROP_LOCK_ERROR,
    DPIF_WYE_DROP_USERSPACE_ACTION_ERROR,
    DPIF_WYE_DROP_INVALID_TNL_PORT,
    DPIF_WYE_DROP_TUNNEL_POP_ERROR,
};

/* Counts drops under the names that dpif-netdev has for them. The patch defines it in dpif-netdev.c, where the counters are. */
void dpif_netdev_count_drops(enum dpif_wye_drop, unsigned int n);

#endif /* dpif-wye.h */
