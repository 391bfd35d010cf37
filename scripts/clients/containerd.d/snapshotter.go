// A snapshotter for tests: containerd's own for overlayfs, whose mounts are made by a mount program.
//
//	snapshotter SOCKET DIRECTORY
//
// What it answers is what the fuse-overlayfs snapshotter answers: one mount of type
// fuse3.fuse-overlayfs with workdir, upperdir and lowerdir, or a bind mount for a single layer.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"strings"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/overlay"
	"google.golang.org/grpc"
)

type byProgram struct{ snapshots.Snapshotter }

func (s byProgram) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return change(s.Snapshotter.Prepare(ctx, key, parent, opts...))
}

func (s byProgram) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return change(s.Snapshotter.View(ctx, key, parent, opts...))
}

func (s byProgram) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return change(s.Snapshotter.Mounts(ctx, key))
}

func change(mounts []mount.Mount, err error) ([]mount.Mount, error) {
	for i := range mounts {
		if mounts[i].Type != "overlay" {
			continue
		}
		mounts[i].Type = "fuse3.fuse-overlayfs"
		var dirs []string
		for _, option := range mounts[i].Options {
			if strings.Contains(option, "dir=") {
				dirs = append(dirs, option)
			}
		}
		mounts[i].Options = dirs
	}
	return mounts, err
}

func main() {
	own, err := overlay.NewSnapshotter(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	socket, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(byProgram{own}))
	log.Fatal(server.Serve(socket))
}
