#!/usr/bin/env bash
# include/wye.h is what ffi/capi generates, and compiles without a warning as C11 and as C++17.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cargo run -q -p wye-capi --example header >"$scratch/wye.h"
diff -u include/wye.h "$scratch/wye.h" || { echo "include/wye.h is not what ffi/capi generates: make header"; exit 1; }

cat >"$scratch/use.c" <<'USE'
#include <wye.h>
/* Every initializer, and the types that callbacks have. */
int main(void)
{
    struct wye_datapath_config config = WYE_DATAPATH_CONFIG_INIT;
    struct wye_port_config port = WYE_PORT_CONFIG_INIT;
    struct wye_flow_request put = WYE_FLOW_REQUEST_INIT;
    struct wye_meter_config meter = WYE_METER_CONFIG_INIT;
    struct wye_worker_ops ops = WYE_WORKER_OPS_INIT;
    struct wye_tunnel_config tunnel = WYE_TUNNEL_CONFIG_INIT;
    struct wye_gateway_config gateway = WYE_GATEWAY_CONFIG_INIT;
    struct wye_interface interface = WYE_INTERFACE_INIT;
    struct wye_route route = WYE_ROUTE_INIT;
    struct wye_vpc_config vpc = WYE_VPC_CONFIG_INIT;
    if (gateway.size + interface.size + route.size + vpc.size == 0)
        return 1;
    return config.size + port.size + put.size + meter.size + ops.size + tunnel.size == 0;
}
USE
strict="-Wall -Wextra -pedantic -Werror -Iinclude"
cc -std=c11 $strict -fsyntax-only "$scratch/use.c"
c++ -std=c++17 $strict -fsyntax-only -x c++ "$scratch/use.c"
echo "include/wye.h: $(grep -c '^#define WYE_' include/wye.h) constants, $(grep -cE '^[a-z].*\bwye_[a-z_]+\(' include/wye.h) functions"
