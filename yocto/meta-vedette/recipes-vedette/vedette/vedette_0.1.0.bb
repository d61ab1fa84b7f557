SUMMARY = "Firmware of an edge appliance: cameras and tags over OPC UA and MQTT"
DESCRIPTION = "One static program: reads cameras and sensors, serves OPC UA, reports by MQTT Sparkplug B, updates itself."
SECTION = "net"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=49ab4ab0f7a6573eeed6216335b854a8"
CVE_PRODUCT = "vedette"

# clang: bindgen over linux/videodev2.h; cmake: libjpeg-turbo.
DEPENDS = "clang-native cmake-native"

# The commit that this layer is of: layer and program cannot be of different versions, and nothing is fetched from elsewhere.
# Whoever has the layer apart from the program sets both of these. kas/dev.yml builds what is not committed.
VEDETTE_SOURCE ?= "git://${VEDETTE_CHECKOUT};protocol=file;nobranch=1"
SRC_URI = "${VEDETTE_SOURCE}"
SRCREV ?= "${@oe.buildcfg.get_metadata_git_revision(d.getVar('VEDETTE_CHECKOUT'))}"
# Because that revision is not in any file that the parser would look at again.
BB_DONT_CACHE = "1"

# By scripts/yocto-crates. Not by cargo-update-recipe-crates, which would take in the locks of fuzz/ and benches/ too.
require ${BPN}-crates.inc

inherit cargo

# Static, as on the quick image, here with this distribution's own C library: its glibc by default, musl if TCLIBC says so.
# glibc loads the parts that resolve names at run time; they are those of the same build, because both are in one image.
# What is linked in does not appear among the packages that this one needs; so the libraries are those of DEPENDS and of the
# toolchain, which is where the SPDX of this recipe names them, and a fault in the C library means building this anew.
RUSTFLAGS:append:class-target = " -C target-feature=+crt-static --cfg aes_armv8"
CARGO_BUILD_FLAGS:append = " --bin vedette"
# Symbols go to vedette-dbg, which takes an unstripped program.
export CARGO_PROFILE_RELEASE_STRIP = "none"
export LIBCLANG_PATH = "${STAGING_LIBDIR_NATIVE}"
export BINDGEN_EXTRA_CLANG_ARGS = "--target=${TARGET_SYS} --sysroot=${STAGING_DIR_HOST}"

do_install() {
    install -d ${D}${bindir}
    install -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/vedette ${D}${bindir}/vedette
    if ${READELF} --program-headers ${D}${bindir}/vedette | grep -q INTERP; then
        bbfatal "vedette is not static: it wants a loader"
    fi
}

RDEPENDS:${PN} += "vedette-config"
