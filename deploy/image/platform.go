package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// platformOf asks the binary itself, so that no image can promise another platform than its binary has.
func platformOf(binary []byte) (v1.Platform, error) {
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return v1.Platform{}, fmt.Errorf("no binary for Linux: %w", err)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return v1.Platform{}, errors.New("the binary wants a dynamic loader, which the image has not: build it with CGO_ENABLED=0")
		}
	}
	switch file.Machine {
	case elf.EM_X86_64:
		return v1.Platform{OS: "linux", Architecture: "amd64"}, nil
	case elf.EM_AARCH64:
		return v1.Platform{OS: "linux", Architecture: "arm64"}, nil
	default:
		return v1.Platform{}, fmt.Errorf("images are made for amd64 and arm64, this binary is for %s", file.Machine)
	}
}
