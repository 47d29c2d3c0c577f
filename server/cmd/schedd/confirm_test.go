package main

import (
	"bytes"
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/settings"
)

// unknown asks a primary for a run that there never was, until it can tell.
func (p *primary) unknown() codes.Code {
	p.Helper()
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	for {
		_, err := schedv1.NewRunServiceClient(conn).GetRun(ctx, &schedv1.GetRunRequest{Id: strings.Repeat("a", 26)}, grpc.WaitForReady(true))
		if c := status.Code(err); c != codes.Unavailable {
			return c
		}
	}
}

// A primary that is stopped has lost runs. It says so until somebody confirms that.
func TestConfirmLoss(t *testing.T) {
	dir := t.TempDir()
	line := []string{"confirm-loss", "--data-dir", dir}
	says(t, 1, []string{"holds no data of a primary"}, line...)
	says(t, settings.ExitUsage, []string{"did you mean --dry-run?"}, append(line, "--dry-ru")...)
	says(t, 0, []string{"--data-dir", "The primary has to be stopped"}, "confirm-loss", "--help")

	p := start(t, dir)
	p.put("one")
	if c := p.unknown(); c != codes.NotFound {
		t.Errorf("with nothing lost, of a run that there never was: %v", c)
	}
	says(t, 1, []string{"another process uses it: stop that one first"}, line...)
	p.stop()
	says(t, 0, []string{"Nothing is lost"}, line...)

	db, err := sql.Open("sqlite", filepath.Join(dir, "history", "history.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO gaps VALUES (0, 1700000000000000000, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const span = "2023-11-14T22:13:20Z"
	if said := says(t, 0, []string{"all runs that ended\n", span}, append(line, "--dry-run")...); strings.Contains(said, "onfirmed") {
		t.Errorf("it did it: %s", said)
	}
	p = start(t, dir)
	if c := p.unknown(); c != codes.DataLoss {
		t.Errorf("with runs that are lost, of one that there never was: %v", c)
	}
	p.stop()
	var out, logs bytes.Buffer
	if err := run(t.Context(), line, &out, &logs); err != nil || !strings.Contains(out.String(), span) || !strings.Contains(out.String(), "Confirmed. Start the primary") {
		t.Errorf("it says\n%s%v", &out, err)
	}
	if text := logs.String(); !strings.Contains(text, "it was confirmed that runs are lost") || !strings.Contains(text, span) {
		t.Errorf("its log has %q", text)
	}
	says(t, 0, []string{"Nothing is lost"}, line...)
	p = start(t, dir)
	if c := p.unknown(); c != codes.NotFound {
		t.Errorf("with the loss confirmed, of a run that there never was: %v", c)
	}
	p.stop()
}
