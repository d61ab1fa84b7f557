SUMMARY = "Vedette: what the disk holds beside the root"
DESCRIPTION = "The boot script, the first boot counters, and the image of a kernel slot: kernel and initramfs on FAT."
SECTION = "bootloaders"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=49ab4ab0f7a6573eeed6216335b854a8"

INHIBIT_DEFAULT_DEPS = "1"
DEPENDS = "dosfstools-native dtc-native mtools-native u-boot-tools-native"

FILESEXTRAPATHS:prepend := "${VEDETTE_CHECKOUT}/config/device/boot:${VEDETTE_CHECKOUT}/config/device:${VEDETTE_CHECKOUT}:"
SRC_URI = " \
    file://LICENSE \
    file://boot.cmd \
    file://partitions \
    file://kernel.its.in \
"
SRC_URI:append:raspberrypi5 = " \
    file://autoboot.txt \
    file://config.txt \
    file://cmdline.txt.in \
"
SRC_URI:append:genericarm64 = " file://grub.cfg"
S = "${UNPACKDIR}"

inherit deploy nopackages

PACKAGE_ARCH = "${MACHINE_ARCH}"
COMPATIBLE_MACHINE = "^(genericarm64|qemuarm64|raspberrypi3-64|raspberrypi4-64|raspberrypi5)$"

# On a boundary of 2 MiB behind the beginning of RAM, away from where the boot script puts what it loads.
VEDETTE_KERNEL_ADDRESS:qemuarm64 = "0x40400000"
VEDETTE_KERNEL_ADDRESS:rpi = "0x00200000"

VEDETTE_INITRAMFS = "${DEPLOY_DIR_IMAGE}/vedette-initramfs-${MACHINE}.cpio.zst"

do_configure[noexec] = "1"
do_compile[depends] += "virtual/kernel:do_deploy vedette-initramfs:do_image_complete"
do_compile[cleandirs] = "${B}"
B = "${WORKDIR}/build"

# mebibytes LABEL: of that partition, from the one table.
mebibytes() {
    awk -v label="$1" '$1 == label { print $2 }' ${S}/partitions
}

do_compile() {
    mkimage -T script -C none -A arm64 -n vedette -d ${S}/boot.cmd boot.scr

    # A is good, B is empty.
    printf 'BOOT_ORDER=A B\nBOOT_A_LEFT=64\nBOOT_B_LEFT=0\n' | mkenvimage -r -s 0x4000 -o counters -
    truncate -s $(mebibytes env)M env
    dd if=counters of=env conv=notrunc

    truncate -s $(mebibytes kernel-a)M kernel
    mkfs.vfat -n KERNEL kernel
    fill_kernel_slot
}

# One file with checksums that U-Boot looks at before it starts anything.
fill_kernel_slot() {
    gzip -9 --no-name <${DEPLOY_DIR_IMAGE}/Image >Image.gz
    sed -e "s,@KERNEL@,$PWD/Image.gz," -e "s,@INITRAMFS@,${VEDETTE_INITRAMFS}," \
        -e "s,@ADDRESS@,${VEDETTE_KERNEL_ADDRESS}," ${S}/kernel.its.in >kernel.its
    mkimage -f kernel.its kernel.fit
    mcopy -i kernel kernel.fit ::kernel.fit
}

# GRUB reads the slot, and knows no FIT: it looks at the sums before it starts anything.
fill_kernel_slot:genericarm64() {
    cp ${DEPLOY_DIR_IMAGE}/Image vmlinuz
    cp ${VEDETTE_INITRAMFS} initramfs.img
    sha256sum vmlinuz initramfs.img >SHA256SUMS
    mcopy -i kernel vmlinuz initramfs.img SHA256SUMS ::
}

# The Raspberry Pi 5's own loader reads the slot.
fill_kernel_slot:raspberrypi5() {
    mcopy -i kernel ${DEPLOY_DIR_IMAGE}/Image ::kernel_2712.img
    mcopy -i kernel ${VEDETTE_INITRAMFS} ::initramfs.img
    mcopy -i kernel ${S}/config.txt ::config.txt
    for slot in A B; do
        sed -e "s,@SLOT@,$slot," -e 's, *@TRIAL@,,' ${S}/cmdline.txt.in >cmdline
        mcopy -i kernel cmdline ::slot-$slot.txt
        sed -e "s,@SLOT@,$slot," -e 's,@TRIAL@,vedette.trial=0,' ${S}/cmdline.txt.in >cmdline
        mcopy -i kernel cmdline ::trial-$slot.txt
    done
    mmd -i kernel ::overlays
    for tree in ${KERNEL_DEVICETREE}; do
        case $tree in
            overlays/*) mcopy -i kernel ${DEPLOY_DIR_IMAGE}/$(basename $tree) ::$tree ;;
            *) mcopy -i kernel ${DEPLOY_DIR_IMAGE}/$(basename $tree) ::$(basename $tree) ;;
        esac
    done
}

do_deploy() {
    install -m 0644 boot.scr ${DEPLOYDIR}/vedette-boot.scr
    install -m 0644 env ${DEPLOYDIR}/vedette-env.img
    install -m 0644 kernel ${DEPLOYDIR}/vedette-kernel.img
}

do_deploy:append:raspberrypi5() {
    install -m 0644 ${S}/autoboot.txt ${DEPLOYDIR}/autoboot.txt
}

do_deploy:append:genericarm64() {
    install -m 0644 ${S}/grub.cfg ${DEPLOYDIR}/vedette-grub.cfg
    # A is good, B is empty; a block of exactly this size.
    {
        printf '# GRUB Environment Block\nBOOT_ORDER=A B\nBOOT_A_LEFT=100\nBOOT_B_LEFT=0\n'
        head -c 1024 /dev/zero | tr '\0' '#'
    } | head -c 1024 >${DEPLOYDIR}/vedette-grubenv
}

addtask deploy after do_compile before do_build
