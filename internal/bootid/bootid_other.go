//go:build !linux && !darwin

package bootid

func namespace() string { return "" }
