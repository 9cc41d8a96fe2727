# The guest's first process, on the host's root: mounts what a system has, runs the command with the second serial port
# as its output, says how it ended and turns the power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# Elsewhere opening /dev/net/tun loads it, here the file is not there before.
modprobe tun
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw
echo "@up"
sh /run/eip-gateway-vm/command.sh
code=$?
# The command may have left a line unfinished.
echo
echo "@exit $code"
# Until the port has sent it.
sleep 1
echo o >/proc/sysrq-trigger
sleep 60
