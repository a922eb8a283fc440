package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// newLayer packs files in the order given, all of one time.
func newLayer(files []file, at time.Time) (v1.Layer, error) {
	var text bytes.Buffer
	writer := tar.NewWriter(&text)
	for _, f := range files {
		if err := writeFile(writer, f, at); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
}

// writeFile writes what does not differ between machines: owners are numbers, and nothing is taken from the disk.
func writeFile(writer *tar.Writer, f file, at time.Time) error {
	header := tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.body)), ModTime: at, Format: tar.FormatUSTAR}
	if strings.HasSuffix(f.path, "/") {
		header.Typeflag = tar.TypeDir
	}
	if err := writer.WriteHeader(&header); err != nil {
		return err
	}
	_, err := writer.Write(f.body)
	return err
}
