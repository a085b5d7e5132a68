package httplimit

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// watcher is a ResponseWriter that notes the status. What the one below can do besides,
// Push excepted, can be done through it.
type watcher struct {
	http.ResponseWriter
	status int  // 0 until the first byte of the answer
	open   bool // a stream, or hijacked: how long it lasts is up to the client
}

// WriteHeader notes the first status that is final.
func (w *watcher) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watcher) Write(p []byte) (int, error) {
	w.began()
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets a file go the short way to the connection.
func (w *watcher) ReadFrom(r io.Reader) (int64, error) {
	w.began()
	return io.Copy(w.ResponseWriter, r)
}

func (w *watcher) began() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// Unwrap is for http.ResponseController.
func (w *watcher) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush and Hijack are for those who ask for http.Flusher and http.Hijacker.
func (w *watcher) Flush() { _ = w.FlushError() }

func (w *watcher) FlushError() error {
	w.began()
	w.open = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *watcher) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.open = w.open || err == nil
	return conn, rw, err
}
