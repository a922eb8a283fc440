package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// archiveTimeout bounds the orderly end of the node whose classes are archived: writing takes 3 s.
const archiveTimeout = 60 * time.Second

// archivePath is where the class archive for this Java runtime is or would be. An archive of another
// runtime would only be ignored, so the name tells them apart.
func (k *Kafka) archivePath() string {
	id := k.java
	if path, err := filepath.EvalSymlinks(k.java); err == nil {
		id = path
		if info, err := os.Stat(path); err == nil {
			id += info.ModTime().String()
		}
	}
	hash := sha256.Sum256([]byte(id))
	return filepath.Join(k.jars.folder, fmt.Sprintf("classes-%x.jsa", hash[:4]))
}

// archiveClasses keeps the loaded and verified classes of a running broker in a file that later
// JVMs map into memory (application class-data sharing). It halves the time to start a node, and
// takes one start and stop, once per cache and Java runtime. Several processes may call it at once.
func (k *Kafka) archiveClasses(ctx context.Context) (err error) {
	path := k.archivePath()
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	lock, err := lock(ctx, k.jars.folder+".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	k.config.Progress("preparing quick starts of Kafka (once)")
	fresh := path + ".new"
	model, err := openKafka(ctx, KafkaConfig{
		Nodes: 1, HeapMB: k.config.HeapMB, Progress: func(string) {},
		JVM: append(fastStart(), "-XX:ArchiveClassesAtExit="+fresh, "-Xlog:cds=off", "-Xlog:cds+dynamic=off"),
	}, k.jars, k.java)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	if err := model.with(0, func(p *process) error { return p.stop(syscall.SIGTERM, archiveTimeout) }); err != nil {
		return err
	}
	if _, err := os.Stat(fresh); err != nil {
		// This runtime makes no archives. An empty file keeps us from trying again.
		return errors.Join(errors.New("the Java runtime archived no classes"), os.WriteFile(path, nil, 0o600))
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("keep class archive: %w", err)
	}
	return nil
}

// archiveFlags make a JVM use the archive, if there is one.
func (k *Kafka) archiveFlags() []string {
	info, err := os.Stat(k.archivePath())
	if err != nil || info.Size() == 0 {
		return nil
	}
	return []string{"-XX:SharedArchiveFile=" + k.archivePath()}
}
