package e2e

import "syscall"

// diesWithUs has the kernel end a process when the tests end in a hurry.
func diesWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
