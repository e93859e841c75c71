#!/bin/bash
# test_boot.py runs this inside a Debian that it has booted: the package under the real systemd. Every line goes to the console.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s AWS_REGION=us-east-1
say() { echo "TRIAL $*"; }
show() { systemctl show penstock -p "$1" --value; }
until_true() { for i in $(seq 100); do eval "$1" && return 0; sleep 0.1; done; say "waited in vain: $1"; return 1; }
has() { penstock read app-logs --endpoint http://127.0.0.1:4567 2>/dev/null | grep -qF "$1"; }
check() { if eval "$2"; then say "ok: $1"; else say "NOT OK: $1"; fi; }
say "systemd $(systemctl --version | head -1)"
# Without a network; what it depends on is there.
dpkg -i /trial/penstock.deb >/dev/null
check "installed, enabled, not started" '[ "$(systemctl is-enabled penstock) $(systemctl is-active penstock)" = "enabled inactive" ]'
systemctl start penstock; check "without a stream it fails with 78, and is not tried again" '[ "$(show ExecMainStatus) $(show NRestarts) $(show ActiveState)" = "78 0 failed" ]'
systemctl reset-failed penstock
systemd-run -q --unit=kinesis -p Type=exec penstock local --port 4567 --stream app-logs:2
sed -i -E 's/^# (stream|region) = /\1 = /; s|^# endpoint = "".*|endpoint = "http://127.0.0.1:4567"|' /etc/penstock/penstock.toml
printf '[default]\naws_access_key_id = k\naws_secret_access_key = s\n' > /etc/penstock/credentials; chmod 600 /etc/penstock/credentials
mkdir -p /etc/systemd/system/penstock.service.d; cp /usr/share/doc/penstock/examples/credentials.conf /etc/systemd/system/penstock.service.d/
printf '[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n' > /etc/systemd/system/penstock.service.d/trial.conf
cp /usr/share/doc/penstock/examples/conf.d/*.toml /etc/penstock/conf.d/
cat > /etc/penstock/conf.d/trial.toml <<'T'
[inputs.local]
type = "syslog"
listen = ["unixgram:///run/penstock/log.sock"]
group = "adm"
[inputs.several]
type = "file"
paths = ["/var/log/several.log"]
multiline_start = '^\d{4}-'
multiline_timeout = "200ms"
T
systemctl daemon-reload
systemctl enable -q --now penstock-syslog-udp.socket penstock-syslog-tcp.socket; check "sockets are open" 'systemctl is-active -q penstock-syslog-udp.socket && systemctl is-active -q penstock-syslog-tcp.socket'
systemctl start penstock; check "start returns when it is ready" '[ "$(show ActiveState) $(show SubState)" = "active running" ]'
say "status: $(show StatusText); memory $(show MemoryCurrent); $(grep -E "VmRSS|Cap(Eff|Bnd)|Seccomp:|NoNewPrivs|Groups" /proc/$(show MainPID)/status | tr -s '\t\n' ' ')"
check "no capability, seccomp on" 'grep -q "CapEff:.*0000000000000000" /proc/$(show MainPID)/status && grep -q "Seccomp:.*2" /proc/$(show MainPID)/status'
check "the socket's file belongs to adm" '[ "$(stat -c "%U:%G %a" /run/penstock/log.sock)" = "penstock:adm 660" ]'
mkdir -p /var/log/app; echo "app line one" >> /var/log/app/a.log
printf '2026-01 first\n second\n2026-02 third\n' >> /var/log/several.log
logger -p local0.info "through rsyslog"
echo '<13>trial: by udp' > /dev/udp/127.0.0.1/514
echo '<13>trial: by tcp 601' > /dev/tcp/127.0.0.1/601
echo '<13>trial: by tcp 514' > /dev/tcp/127.0.0.1/514
logger -u /run/penstock/log.sock -d "by unix datagram"
for what in "app line one" "by udp" "by tcp 601" "by tcp 514" "by unix datagram" " second"; do until_true "has '$what'"; check "delivered: $what" "has '$what'"; done
check "rsyslog's file, by the group adm" "until_true \"has 'through rsyslog'\""
until_true '[[ "$(show StatusText)" == *"records delivered"* && "$(show StatusText)" != 0* ]]'; say "status: $(show StatusText)"
# reload
sed -i 's/"200ms"/"300ms"/' /etc/penstock/conf.d/trial.toml; pid=$(show MainPID)
systemctl reload penstock; check "reload" '[ "$(show ActiveState) $(show MainPID)" = "active $pid" ] && journalctl -q -u penstock | grep -q "is taken on"'
echo 'oops' >> /etc/penstock/conf.d/trial.toml; systemctl reload penstock; sleep 0.5
check "a faulty configuration is refused, and the status says so" '[ "$(show ActiveState) $(show MainPID)" = "active $pid" ] && [[ "$(show StatusText)" == *"is refused"* ]]'; say "status: $(show StatusText)"
sed -i '/oops/d' /etc/penstock/conf.d/trial.toml; systemctl reload penstock
# socket activation
systemctl stop penstock; check "stopped" '[ "$(systemctl is-active penstock)" = inactive ] && [ "$(show Result)" = success ]'
echo '<13>trial: wakes it' > /dev/udp/127.0.0.1/514
until_true 'systemctl is-active -q penstock'; check "a datagram starts it and is delivered" "until_true \"has 'wakes it'\""
# restart with datagrams meanwhile
(for i in $(seq 500); do echo "<13>trial: flood $i." > /dev/udp/127.0.0.1/514; sleep 0.002; done) & systemctl restart penstock; wait %1
until_true "has 'flood 500.'"; check "500 datagrams over a restart" '[ "$(penstock read app-logs --endpoint http://127.0.0.1:4567 | grep -o "flood [0-9]*\." | sort -u | wc -l)" = 500 ]'
# watchdog
pid=$(show MainPID); sleep 6; check "beats keep it alive" '[ "$(show MainPID)" = "$pid" ]'
kill -STOP $pid; for i in $(seq 200); do [ "$(show NRestarts)" = 1 ] && break; sleep 0.1; done
until_true 'systemctl is-active -q penstock'
check "the watchdog restarts one that stands still" '[ "$(show NRestarts)" = 1 ] && [ "$(show MainPID)" != "$pid" ] && journalctl -q -u penstock | grep -q -i "watchdog timeout"'
echo "app line two" >> /var/log/app/a.log; until_true "has 'app line two'"; check "and it goes on" "has 'app line two'"
# upgrade and removal
pid=$(show MainPID); dpkg -i --force-confold /trial/newer.deb >/dev/null; until_true 'systemctl is-active -q penstock'
check "an upgrade restarts it, and leaves the sockets" '[ "$(show MainPID)" != "$pid" ] && systemctl is-active -q penstock-syslog-udp.socket'
echo "app line three" >> /var/log/app/a.log; until_true "has 'app line three'"; check "nothing is read again" '[ "$(penstock read app-logs --endpoint http://127.0.0.1:4567 | grep -c "app line")" = 3 ]'
dpkg -r penstock >/dev/null; check "a removal stops it and its sockets" '! systemctl is-active -q penstock && ! systemctl is-active -q penstock-syslog-udp.socket && [ -d /var/lib/penstock ]'
dpkg -P penstock >/dev/null; check "a purge removes the state" '[ ! -e /var/lib/penstock ] && [ ! -e /etc/penstock/penstock.toml ]'
journalctl -q -u penstock -p warning -o cat | sed 's/^/journal: /' | tail -40
say done
systemctl --no-block poweroff -f
