/* Keeps one idle VM with a vCPU open for as long as L1 runs, so that the CPU's SVM mode is not switched
 * off and on as the jobs' VMs come and go: QEMU's emulation of that switch is what hangs L1. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0) {
        perror("hold-vm: /dev/kvm");
        return 1;
    }
    puts("lab: holding an idle vm");
    fflush(stdout);
    for (;;)
        pause();
}
