/* Meters and bonds: what Open vSwitch says, in the library's words. */

#include <config.h>
#include <errno.h>
#include "dpif-wye-private.h"
#include "openvswitch/ofp-meter.h"

/* Meter numbers are below this: the library's own limit. */
#define METERS_MAX (1 << 18)

void
dpif_wye_meter_get_features(const struct dpif *dpif OVS_UNUSED, struct ofputil_meter_features *features)
{
    features->max_meters = METERS_MAX;
    features->band_types = 1 << OFPMBT13_DROP;
    features->capabilities = OFPMF13_KBPS | OFPMF13_PKTPS | OFPMF13_BURST | OFPMF13_STATS;
    features->max_bands = WYE_METER_BANDS_MAX;
    features->max_color = 0;
}

int
dpif_wye_meter_set(struct dpif *dpif, ofproto_meter_id id, struct ofputil_meter_config *config)
{
    struct wye_meter_config meter = WYE_METER_CONFIG_INIT;
    struct wye_error *error = NULL;

    if (id.uint32 >= METERS_MAX) {
        return EFBIG;
    }
    if (config->flags & ~(OFPMF13_KBPS | OFPMF13_PKTPS | OFPMF13_BURST | OFPMF13_STATS)) {
        return EBADF;
    }
    if (config->n_bands > WYE_METER_BANDS_MAX) {
        return EINVAL;
    }
    meter.unit = config->flags & OFPMF13_PKTPS ? WYE_METER_PPS : WYE_METER_KBPS;
    meter.n_bands = config->n_bands;
    for (int i = 0; i < config->n_bands; i++) {
        if (config->bands[i].type != OFPMBT13_DROP) {
            return ENODEV;
        }
        meter.bands[i].rate = config->bands[i].rate;
        meter.bands[i].burst = config->bands[i].burst_size;
    }
    return dw_errno(wye_meter_set(dw_dp_of(dpif)->engine, id.uint32, &meter, dw_now_ns(), &error), error);
}

static void
report(const struct wye_meter_stats *from, struct ofputil_meter_stats *stats, uint16_t n_bands)
{
    if (stats) {
        stats->packet_in_count = from->input.packets;
        stats->byte_in_count = from->input.bytes;
        stats->n_bands = MIN(n_bands, from->n_bands);
        for (int i = 0; i < stats->n_bands; i++) {
            stats->bands[i].packet_count = from->bands[i].packets;
            stats->bands[i].byte_count = from->bands[i].bytes;
        }
    }
}

int
dpif_wye_meter_get(const struct dpif *dpif, ofproto_meter_id id, struct ofputil_meter_stats *stats, uint16_t n_bands)
{
    struct wye_error *error = NULL;
    struct wye_meter_stats read;

    if (id.uint32 >= METERS_MAX) {
        return EFBIG;
    }
    int rc = dw_errno(wye_meter_get(dw_dp_of(dpif)->engine, id.uint32, &read, &error), error);
    if (!rc) {
        report(&read, stats, n_bands);
    }
    return rc;
}

int
dpif_wye_meter_del(struct dpif *dpif, ofproto_meter_id id, struct ofputil_meter_stats *stats, uint16_t n_bands)
{
    struct wye_error *error = NULL;
    struct wye_meter_stats last;

    if (id.uint32 >= METERS_MAX) {
        return EFBIG;
    }
    int rc = dw_errno(wye_meter_del(dw_dp_of(dpif)->engine, id.uint32, &last, &error), error);
    if (!rc) {
        report(&last, stats, n_bands);
    }
    return rc;
}

int
dpif_wye_bond_add(struct dpif *dpif, uint32_t bond_id, odp_port_t *member_map)
{
    struct wye_error *error = NULL;
    uint32_t ports[WYE_BOND_BUCKETS];

    BUILD_ASSERT_DECL(WYE_PORT_NONE == UINT32_MAX);
    for (int i = 0; i < WYE_BOND_BUCKETS; i++) {
        ports[i] = odp_to_u32(member_map[i]);
    }
    return dw_errno(wye_bond_set(dw_dp_of(dpif)->engine, bond_id, ports, &error), error);
}

int
dpif_wye_bond_del(struct dpif *dpif, uint32_t bond_id)
{
    struct wye_error *error = NULL;

    return dw_errno(wye_bond_del(dw_dp_of(dpif)->engine, bond_id, &error), error);
}

/* Open vSwitch gives zeros. */
int
dpif_wye_bond_stats_get(struct dpif *dpif, uint32_t bond_id, uint64_t *n_bytes)
{
    struct wye_error *error = NULL;

    return dw_errno(wye_bond_stats(dw_dp_of(dpif)->engine, bond_id, n_bytes, &error), error);
}
