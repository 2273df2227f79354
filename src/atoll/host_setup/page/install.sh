# Runs inside the first VM as its login user: $1 is the page's program, $2 seconds to wait for it.
set -eu
mkdir -p "$HOME/page"
printf '%s' "$1" > "$HOME/page/page.py"
sudo tee /etc/systemd/system/page.service > /dev/null <<UNIT
[Unit]
Description=The first page
[Service]
User=$(id -un)
ExecStart=/usr/bin/python3 $HOME/page/page.py
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
sudo systemctl daemon-reload
sudo systemctl enable --now --quiet page.service
left=$(($2 * 5))
until python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:8000/", timeout=5)' 2> /dev/null; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || { systemctl status --no-pager page.service; exit 1; }
  sleep 0.2
done
# On disk before the clone: the clone then has it after a reboot, too.
sync
