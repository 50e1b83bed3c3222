package admin

import "golang.org/x/sys/unix"

// peerUID asks the system who opened the other end of a socket.
func peerUID(fd int) (int, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Nobody, err
	}
	return int(cred.Uid), nil
}
