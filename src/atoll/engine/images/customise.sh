# Runs as root inside the new file system (stdin of `sh -eu`), after the tree was copied in.
# What is here needs the system's own tools; plain files belong in tree/.

useradd --create-home --shell /bin/bash --uid 1000 --groups sudo,adm,systemd-journal atoll
passwd --lock root >/dev/null
chmod 0440 /etc/sudoers.d/atoll
install -d -m 0755 /etc/ssh/authorized_keys.d /var/log/journal /etc/systemd/system-generators
install -d -m 0700 -o atoll -g atoll /home/atoll/.ssh
# The user's services run without a login, as on a machine of one's own.
install -d -m 0755 /var/lib/systemd/linger && : >/var/lib/systemd/linger/atoll

# The setup script of a new VM, also where the SDK of exe.dev looks for it: see exe-setup.service.
install -d -m 0755 /var/lib/atoll /exe.dev
ln -s /var/lib/atoll/setup /exe.dev/setup
ln -s exe-setup.service /etc/systemd/system/atoll-setup.service

systemctl --quiet set-default multi-user.target
systemctl --quiet disable ssh.service
systemctl --quiet enable ssh.socket atoll-agent.service atoll-ready.service systemd-networkd.service
systemctl --quiet disable systemd-networkd-wait-online.service
# Host keys come from the engine; consoles without a reader cost memory; timers of fifty idle clones
# of one moment would all fire together.
systemctl --quiet mask sshd-keygen.service getty-static.service getty@tty1.service \
  serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service
# /tmp on the disk: in memory it would be copied by every clone and pause.
systemctl --quiet mask tmp.mount
# No sshd on vsock, no search for partitions: the disk is one file system, the way in is the network.
for generator in systemd-ssh-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator; do
  ln -s /dev/null "/etc/systemd/system-generators/$generator"
done

# The engine boots the kernel and initial file system it took from this image, so one made inside
# would never be used, and upgrading the package would remove the running kernel's modules.
printf 'virtio_blk\nvirtio_pci\n' >>/etc/initramfs-tools/modules
rm -f /boot/initrd.img-*
# The date of the archive in place of now makes two equal builds equal.
SOURCE_DATE_EPOCH=$(sed -n 's/^Date: //p' /var/lib/apt/lists/*Release |
  while read -r date; do date -d "$date" +%s; done | sort -n | tail -n 1)
export SOURCE_DATE_EPOCH
update-initramfs -c -k all
printf 'update_initramfs=no\n' >/etc/initramfs-tools/update-initramfs.conf
apt-mark hold "linux-image-cloud-$(dpkg --print-architecture)" >/dev/null

python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/atoll
# Each login loads every module that it names: with these three an emulated one takes a fifth longer.
# Nothing here labels processes or delivers mail, and sshd prints /etc/motd itself.
sed -i -E '/pam_(selinux|motd|mail)\.so/d' /etc/pam.d/sshd
# Run by every login before its prompt: a fifth of a second when emulated, to print `uname`.
rm -rf /etc/update-motd.d
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed
: >/etc/machine-id
