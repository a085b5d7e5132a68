// Package pages_test serves page previews as Wikipedia does, more than half a million
// a minute: a handler over SQLite, behind package httpcoalesce, on a real server.
package pages_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// pageCount is how many pages there are; which are read is drawn by a Zipf law.
const pageCount = 20_000

func title(i int) string { return "Page_" + strconv.Itoa(i) }

// extract is the first paragraph of a page.
func extract(i int) string {
	return fmt.Sprintf("%s is the %dth page. %s", title(i), i, strings.Repeat("It has a few hundred bytes of text. ", 5+i%20))
}

// A site serves page summaries from a database.
type site struct {
	summary *sql.Stmt
	queries atomic.Int64
}

// A summary is what a preview shows.
type summary struct {
	Title   string `json:"title"`
	Extract string `json:"extract"`
}

func newSite(t testing.TB) *site {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "pages.db")+"?_pragma=journal_mode(wal)&_pragma=synchronous(off)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	// Reads are bound by the processor: more connections than cores only make
	// them take turns.
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(2)
	_, err = db.ExecContext(t.Context(), "CREATE TABLE page (title TEXT PRIMARY KEY, extract TEXT NOT NULL) WITHOUT ROWID")
	require.NoError(t, err)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	insert, err := tx.PrepareContext(t.Context(), "INSERT INTO page (title, extract) VALUES (?, ?)")
	require.NoError(t, err)
	for i := range pageCount {
		_, err := insert.ExecContext(t.Context(), title(i), extract(i))
		require.NoError(t, err)
	}
	require.NoError(t, insert.Close())
	require.NoError(t, tx.Commit())
	s := &site{}
	s.summary, err = db.PrepareContext(t.Context(), "SELECT extract FROM page WHERE title = ?")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.summary.Close()) })
	return s
}

const prefix = "/api/rest_v1/page/summary/"

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := summary{Title: strings.TrimPrefix(r.URL.Path, prefix)}
	s.queries.Add(1)
	switch err := s.summary.QueryRowContext(r.Context(), p.Title).Scan(&p.Extract); {
	case errors.Is(err, sql.ErrNoRows):
		http.NotFound(w, r)
		return
	case err != nil:
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	body, err := json.Marshal(p)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

func collapsed(t testing.TB, next http.Handler) *httpcoalesce.Handler {
	h, err := httpcoalesce.New(next, httpcoalesce.Options{})
	require.NoError(t, err)
	return h
}

// serve starts a server on a loopback port and returns its address.
func serve(t testing.TB, h http.Handler) string {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, s.Shutdown(context.WithoutCancel(t.Context())))
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	return l.Addr().String()
}
