#!/usr/bin/env bash
# Makes a small guest for qemu: a Linux kernel with tunnels that the one underneath may lack, and a shell on its virtio port.
#   tests/guest/build.sh     makes target/guest/kernel and target/guest/initramfs, unless they are there and newer than this file
# Set WYE_GUEST to have them in another directory; the tests look there too.
#
# The kernel is Debian's package for virtual machines, which is downloaded and unpacked, not installed. What else is in the guest are busybox, ip, ethtool
# and iperf3 of this machine. Ends with 77 if something for that is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${WYE_GUEST:-$(dirname "$(dirname "$here")")/target/guest}
export PATH=$PATH:/usr/sbin:/sbin

unavailable() { echo "guest: $*" >&2; exit 77; }

[ "$out/initramfs" -nt "$0" ] && [ -s "$out/kernel" ] && exit 0

missing=()
for need in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio ip:iproute2 ethtool:ethtool iperf3:iperf3; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} = 0 ] || unavailable "missing: apt-get install ${missing[*]}"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || unavailable "no apt-get to download a kernel with"
[ "$(dpkg --print-architecture)" = amd64 ] || unavailable "the programs of this machine are not for amd64"

mkdir -p "$out"
work=$(mktemp -d -p "$out")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,modules}

# The package that the metapackage of this name stands for today, in $work.
fetch() {
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | sed -n 1p)
    [ -n "$package" ] && (cd "$work" && apt-get download -qq -o APT::Sandbox::User= "$package") >"$out/apt.log" 2>&1
}
# The lists of packages may be missing or old.
fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq >"$out/apt.log" 2>&1 && fetch; } ||
    unavailable "apt has no linux-image-cloud-amd64: $(tail -1 "$out/apt.log" 2>/dev/null)"
dpkg-deb -x "$work"/linux-image-*.deb "$work/unpacked"

# Each module behind those that it needs. What is not there is part of the kernel itself.
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console failover net_failover
    virtio_net udp_tunnel ip6_udp_tunnel geneve ip_tunnel gre ip_gre tunnel6 ip6_tunnel ip6_gre"
for module in $modules; do
    file=$(find "$work/unpacked" -name "$module.ko*" | sed -n 1p)
    case $file in
        '') continue ;;
        *.xz) xz -dc "$file" >"$root/modules/$module.ko" ;;
        *) cp "$file" "$root/modules/$module.ko" ;;
    esac
    echo "$module" >>"$root/modules/order"
done

# Programs with the libraries that they are linked with.
for program in busybox ip ethtool iperf3; do
    program=$(readlink -f "$(command -v $program)")
    cp "$program" "$root/bin/"
    # One that is linked statically has none.
    { ldd "$program" 2>/dev/null | grep -o '/[^ )]*' || true; } | while read -r library; do
        [ -e "$root$library" ] || install -D "$(readlink -f "$library")" "$root$library"
    done
done

# Each line that comes is a command; what it printed is followed by a line with its status.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin HOME=/
for applet in cat echo grep mount insmod uname ping poweroff sh sysctl sleep; do
    busybox ln -s busybox /bin/$applet
done
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod /modules/$module.ko; done </modules/order
ip link set lo up
# Not a serial line: under load that may lose what comes.
until port=$(echo /dev/vport*p1) && [ -e "$port" ]; do sleep 0.05; done
exec 3<>"$port"
exec <&3 >&3 2>&1
echo "@ready $(uname -r)"
while read -r line; do
    # busybox would take its own `ip`.
    sh -c "ip() { /bin/ip \"\$@\"; }; $line" </dev/null
    status=$?
    echo
    echo "@end $status"
done
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"
mv "$work"/unpacked/boot/vmlinuz-* "$out/kernel"
mv "$work/initramfs" "$out/initramfs"
echo "guest: ${package#linux-image-}, $(du -h "$out/initramfs" | cut -f1) of initramfs"
