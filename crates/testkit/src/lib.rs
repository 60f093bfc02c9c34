//! Test helpers: fault matrix, fake QEMU, the guest image for tests.
