package bootid

import "syscall"

func namespace() string {
	id, err := syscall.Sysctl("kern.bootsessionuuid")
	if err != nil || len(id) > 100 {
		return ""
	}
	return id
}
