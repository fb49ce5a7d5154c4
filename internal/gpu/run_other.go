//go:build !unix

package gpu

import "os/exec"

func ownGroup(*exec.Cmd) {}

// killGroup kills the command only: its children, if any, live on.
func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
