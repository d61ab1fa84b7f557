# U-Boot's script: chooses the slot. The same text on all boards that have U-Boot; mkimage makes boot.scr of it.
#
#   BOOT_ORDER       the slots, the wanted one first: "A B"
#   BOOT_x_LEFT      tries that slot x has left, hexadecimal. 0: bad. 1 to 3: on trial. More: confirmed.
#
# A slot on trial costs one try at each start, and is told so (vedette.trial= on the kernel's command line); the system takes
# the mark off when it is healthy (rauc status mark-good, 64 tries), else it reboots until no try is left, and then
# the other slot is next. A confirmed slot starts without any write: a device that just runs never writes here.
#
# These variables live in the partition `env`, as two copies of U-Boot's redundant environment (CRC32, one byte of
# sequence, variables), which fw_setenv shares. Read and written by hand, because where U-Boot itself keeps its environment
# depends on how it was built, and a file on FAT does not survive a power cut. The older copy is the one overwritten.

setenv env_bytes 3fff
setenv copy0 ${pxefile_addr_r}
setexpr copy1 ${copy0} + 10000
setexpr work ${copy0} + 20000
# Behind whatever the kernel's own addresses are made for.
setexpr fit ${ramdisk_addr_r} + 8000000

setenv BOOT_ORDER "A B"
setenv BOOT_A_LEFT 64
setenv BOOT_B_LEFT 0

part start ${devtype} ${devnum} env block0
setexpr block1 ${block0} + 400

# Each copy without its byte of sequence is what `env import -c` takes, checksum and all.
setenv valid0 no
setenv valid1 no
${devtype} read ${copy0} ${block0} 20
${devtype} read ${copy1} ${block1} 20
setexpr from ${copy0} + 5
setexpr to ${work} + 4
cp.b ${from} ${to} 3ffb
cp.b ${copy0} ${work} 4
if env import -c ${work} ${env_bytes} nothing; then setenv valid0 yes; fi
setexpr from ${copy1} + 5
cp.b ${from} ${to} 3ffb
cp.b ${copy1} ${work} 4
if env import -c ${work} ${env_bytes} nothing; then setenv valid1 yes; fi

setexpr at ${copy0} + 4
setexpr.b sequence0 *${at}
setexpr at ${copy1} + 4
setexpr.b sequence1 *${at}
setenv newest none
if test ${valid0} = yes; then setenv newest 0; fi
if test ${valid1} = yes; then
    if test ${valid0} = no; then
        setenv newest 1
    else
        # Modulo 256: 00 comes after ff.
        setexpr ahead ${sequence1} + 100
        setexpr ahead ${ahead} - ${sequence0}
        setexpr ahead ${ahead} % 100
        if itest ${ahead} -gt 0 && itest ${ahead} -lt 80; then setenv newest 1; fi
    fi
fi
if test ${newest} = 0; then
    setexpr from ${copy0} + 5
    cp.b ${from} ${to} 3ffb
    cp.b ${copy0} ${work} 4
fi
if test ${newest} != none; then
    env import -c ${work} ${env_bytes} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT
fi

# Writes the counters over the older copy.
setenv save_counters 'env export -c -s ${env_bytes} ${work} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; if test ${newest} = 0; then setexpr next ${sequence0} + 1; setenv block ${block1}; setenv newest 1; else setexpr next ${sequence1} + 1; setenv block ${block0}; setenv newest 0; fi; cp.b ${work} ${copy0} 4; setexpr at ${copy0} + 4; mw.b ${at} ${next}; setexpr at ${copy0} + 5; cp.b ${to} ${at} 3ffb; ${devtype} write ${copy0} ${block} 20; setenv sequence0 ${next}; setenv sequence1 ${next}'

if test ${newest} = none; then
    # Made anew, or no update would find any.
    echo "vedette: no valid boot counters, starting with A"
    run save_counters
fi

for slot in ${BOOT_ORDER}; do
    setenv left 0
    if test ${slot} = A; then setenv left ${BOOT_A_LEFT}; setenv label kernel-a; fi
    if test ${slot} = B; then setenv left ${BOOT_B_LEFT}; setenv label kernel-b; fi
    if itest ${left} -gt 0; then
        setenv trial
        if itest ${left} -le 3; then
            setexpr left ${left} - 1
            setenv trial vedette.trial=${left}
            setenv BOOT_${slot}_LEFT ${left}
            run save_counters
        fi
        echo "vedette: slot ${slot} ${trial}"
        part number ${devtype} ${devnum} ${label} number
        # panic: what goes wrong early must reboot, or nobody counts.
        setenv bootargs "rauc.slot=${slot} vedette.disk=${devtype} ${trial} panic=10 quiet ${vedette_args}"
        if load ${devtype} ${devnum}:${number} ${fit} kernel.fit; then
            # Comes back only if the image is damaged: its checksums are looked at first.
            bootm ${fit}#vedette ${fit}#vedette ${fdt_addr}
        else
            # For a U-Boot without FIT: nobody looks whether these two are whole.
            if load ${devtype} ${devnum}:${number} ${kernel_addr_r} vmlinuz; then
                load ${devtype} ${devnum}:${number} ${fit} initramfs.img && booti ${kernel_addr_r} ${fit}:${filesize} ${fdt_addr}
            fi
        fi
        echo "vedette: slot ${slot} cannot be loaded"
    fi
done

# Nothing can be started: both get their tries again, because waiting for ever helps nobody.
echo "vedette: no slot left, all get their tries again"
setenv BOOT_A_LEFT 3
setenv BOOT_B_LEFT 3
run save_counters
sleep 5
reset
