package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
)

// profileCommand is the first argument with which this program, as a peer, writes its CPU profile to the
// path that is the second.
const profileCommand = "profile"

// profile lets a process of a peer write its CPU profile, where one was asked for and the peer is this
// program.
func (s settings) profile(command *exec.Cmd, name string) error {
	if s.cpuProfile == "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if command.Path == self {
		command.Args = slices.Insert(command.Args, 1, profileCommand, filepath.Join(s.cpuProfile, name+".pprof"))
	}
	return nil
}

// withProfile does work, its CPU profile going to a file if a path is given.
func withProfile(path string, work func() error) (err error) {
	if path == "" {
		return work()
	}
	file, err := os.Create(path) //nolint:gosec // the folder that the caller named
	if err != nil {
		return fmt.Errorf("open a file for the CPU profile: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return fmt.Errorf("begin the CPU profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return work()
}
