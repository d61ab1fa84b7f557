SUMMARY = "Vedette: what makes a device of a root file system"
DESCRIPTION = "Units, presets, masks, udev, sysctl, firewall, mounts: config/device/root as it is, which the quick image has too."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=49ab4ab0f7a6573eeed6216335b854a8"

FILESEXTRAPATHS:prepend := "${VEDETTE_CHECKOUT}/config/device:${VEDETTE_CHECKOUT}/config:${VEDETTE_CHECKOUT}:"
SRC_URI = " \
    file://LICENSE \
    file://root/usr \
    file://root/etc/chrony \
    file://root/etc/fw_env.config \
    file://root/etc/nftables.conf \
    file://root/etc/ssh \
    file://provision.toml \
    file://vedette.toml \
    file://20-chronyd.conf \
    file://00-vedette-yocto.preset \
    file://nftables.service \
"
S = "${UNPACKDIR}"

# What is masked, by links to /dev/null, of which bitbake can make no checksum: so by name. A test compares with the rest of root/.
def vedette_masks(folder, d):
    path = os.path.join(d.getVar("VEDETTE_CHECKOUT"), "config/device/root/etc/systemd", folder)
    return " ".join(sorted(entry.name for entry in os.scandir(path) if entry.is_symlink()))

VEDETTE_MASKED_UNITS = "${@vedette_masks('system', d)}"
VEDETTE_MASKED_GENERATORS = "${@vedette_masks('system-generators', d)}"

inherit allarch useradd

# As config/device/root/usr/lib/sysusers.d has them, because nothing can be added to a root that is read-only.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system --gid 968 gpio; --system --gid 970 vedette"
USERADD_PARAM:${PN} = "--system --uid 970 --gid vedette --groups video,dialout,gpio --home-dir /data/vedette --no-create-home --shell /sbin/nologin vedette"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    cp -R --no-dereference --preserve=mode,links ${S}/root/. ${D}/
    install -d ${D}${sysconfdir}/systemd/system ${D}${sysconfdir}/systemd/system-generators
    for unit in ${VEDETTE_MASKED_UNITS}; do
        ln -s /dev/null ${D}${sysconfdir}/systemd/system/$unit
    done
    for generator in ${VEDETTE_MASKED_GENERATORS}; do
        ln -s /dev/null ${D}${sysconfdir}/systemd/system-generators/$generator
    done
    # The users are above.
    rm ${D}${nonarch_libdir}/sysusers.d/00-vedette.conf
    rmdir ${D}${nonarch_libdir}/sysusers.d

    # What Debian calls otherwise, or brings along.
    install -m 0644 ${S}/nftables.service ${D}${systemd_system_unitdir}/
    ln -s chronyd.service ${D}${systemd_system_unitdir}/chrony.service
    install -d ${D}${systemd_system_unitdir}/chronyd.service.d
    install -m 0644 ${S}/20-chronyd.conf ${D}${systemd_system_unitdir}/chronyd.service.d/
    install -m 0644 ${S}/00-vedette-yocto.preset ${D}${systemd_unitdir}/system-preset/

    # Where the program's other subcommands look for the configuration, and people.
    install -d ${D}${sysconfdir}/vedette
    ln -s /data/vedette/vedette.toml ${D}${sysconfdir}/vedette/vedette.toml

    install -d ${D}${docdir}/vedette
    install -m 0644 ${S}/provision.toml ${S}/vedette.toml ${D}${docdir}/vedette/
    # Mount points: the root is read-only.
    install -d ${D}/boot ${D}/data
    chown -R root:root ${D}
}

FILES:${PN} = "${sysconfdir} ${nonarch_libdir} ${datadir}/dbus-1 ${docdir}/vedette /boot /data"
FILES:${PN}-doc = ""

# What preinit, grow and the units call.
RDEPENDS:${PN} += "\
    dbus \
    e2fsprogs-e2fsck \
    e2fsprogs-resize2fs \
    iproute2 \
    openssh-keygen \
    openssh-sshd \
    rauc \
    systemd \
    util-linux-findmnt \
    util-linux-mount \
    util-linux-mountpoint \
    util-linux-partx \
    util-linux-sfdisk \
"
