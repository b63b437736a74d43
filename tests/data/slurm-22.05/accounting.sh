#!/bin/bash
# Records accounting.txt: what Slurm's accounting commands print for a handful of jobs.
#
# Needs root, a user for the jobs ($1), and Debian's slurmctld, slurmd, slurm-client, slurmdbd, munge
# and mariadb-server; nothing of theirs may run.  It starts all of them in a directory of its own, on
# ports of its own, and prints the transcript; the daemons end with the process group.
#
#     unshare --mount --pid --fork --kill-child --net --mount-proc tests/data/slurm-22.05/accounting.sh USER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
user=$1
dir=$(mktemp -d /tmp/accounting.XXXXXX)
chmod 755 "$dir"
ip link set lo up
ip address add 192.0.2.1/32 dev lo  # getaddrinfo(3) wants an address that is not the loopback's
mkdir "$dir/munge" "$dir/state" "$dir/spool" "$dir/db"
host=$(hostname -s)
head -c 128 /dev/urandom >"$dir/munge/key"
chmod 600 "$dir/munge/key"
munged --foreground --socket="$dir/munge/socket" --key-file="$dir/munge/key" \
    --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" &

mysql_install_db --no-defaults --user=root --datadir="$dir/db" --auth-root-authentication-method=normal \
    --skip-test-db >"$dir/db.log" 2>&1
mariadbd --no-defaults --user=root --datadir="$dir/db" --socket="$dir/sql" --bind-address=127.0.0.1 \
    --port=13306 --innodb-buffer-pool-size=128M >>"$dir/db.log" 2>&1 &
until mariadb --no-defaults -u root -S "$dir/sql" -e "create user slurm@'%' identified by 'x';
    create user slurm@localhost identified by 'x'; create database slurm_acct_db;
    grant all on slurm_acct_db.* to slurm@'%'; grant all on slurm_acct_db.* to slurm@localhost" 2>/dev/null
do sleep 0.2; done

cat >"$dir/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
LogFile=$dir/slurmdbd.log
PidFile=$dir/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=13306
StorageUser=slurm
StoragePass=x
StorageLoc=slurm_acct_db
CONF
chmod 600 "$dir/slurmdbd.conf"
cat >"$dir/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$dir/munge/socket
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
PriorityType=priority/multifactor
PriorityWeightAge=1000
KillWait=5
MinJobAge=300
JobRequeue=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16818 CPUs=2 RealMemory=4000
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$dir/slurm.conf
slurmdbd -D 2>>"$dir/dbd.err" & 
for _ in $(seq 50); do sacctmgr -i -n list cluster >/dev/null 2>&1 && break; sleep 0.2; done
{
sacctmgr -i add cluster local
sacctmgr -i add account science description=science organization=lab
sacctmgr -i add user "$user" account=science
} >"$dir/sacctmgr.log" 2>&1
slurmctld -D -i -f "$dir/slurm.conf" 2>>"$dir/ctld.err" &
sh -c 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec slurmd -D -N n1 -f "$1"' sh "$dir/slurm.conf" 2>>"$dir/slurmd.err" &
for _ in $(seq 100); do [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 1 ] && break; sleep 0.2; done

work=$dir/work
mkdir "$work"
chown "$user" "$work"
as() { setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups env HOME="$work" USER="$user" "$@"; }
cd "$work"
cat >job.sh <<'JOB'
#!/bin/sh
srun -n1 -J first sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'
srun -n2 -J second sh -c 'exit $((SLURM_PROCID * 3))'
exit 4
JOB
printf '#!/bin/sh\nsleep 600\n' >sleep.sh
chmod 755 job.sh sleep.sh
until=0
wait_for() { until squeue -h -t "$2" -j "$1" -o %T 2>/dev/null | grep -q .; do sleep 0.3; done; }
as sbatch -J ok --mem=100 -n1 -t 10 --comment='my comment' --wrap 'sleep 1' >/dev/null        # 1
as sbatch -J steps --mem=200 -n2 -t 10 job.sh >/dev/null                                    # 2
wait_for 2 F,CD
as sbatch -J cancelled -n1 --mem=100 -t 1-00:00:00 sleep.sh >/dev/null                      # 3
wait_for 3 R; sleep 2; as scancel 3; wait_for 3 CA
as sbatch -H -J pended -n1 --mem=100 -t 5 sleep.sh >/dev/null                               # 4
as scancel 4
as srun -J direct -n1 --mem-per-cpu=50 -t 3 sh -c 'kill -9 $$' >/dev/null 2>&1 || true      # 5
as sbatch -J arr -a 1-3 -n1 --mem=50 -t 5 --wrap 'exit $SLURM_ARRAY_TASK_ID' >/dev/null     # 6-8
wait_for 8 F,CD; sleep 2
as salloc -J alloc -n1 --mem=50 -t 5 srun -n1 true >/dev/null 2>&1 || true                  # 9
as sbatch -J waits -H -n2 --mem=1536 -t 5 --nice=5 sleep.sh >/dev/null                       # 10
as sbatch -J runs -n1 --mem=100 -t 90 --wrap 'srun -J busy sh -c "while :; do :; done"' >/dev/null # 11
as sbatch -J waits2 -n2 --mem=1536 -t 5 sleep.sh >/dev/null                                  # 12
sleep 6

run() {
    echo "\$ $*"
    code=0
    as sh -c "$*" </dev/null >"$dir/out" 2>"$dir/err" || code=$?
    [ "$code" = 0 ] || echo "? $code"
    cat "$dir/out" "$dir/err"
}
while read -r line; do run "$line"; done <"${2:-$here/accounting.commands}"
[ -z "${KEEP:-}" ] || { scontrol show config | tail -3; cat "$dir"/*.log "$dir"/*.err | tail -50; } >&2
kill 0
