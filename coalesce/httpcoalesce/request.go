package httpcoalesce

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"strings"
)

// An ask is a request that may be collapsed.
type ask struct {
	req  *http.Request
	key  []byte // all of the key but what the responses turn out to vary on
	base uint64 // hash of key

	// fresh says that the client demands something of the age of the response, so
	// that it must not join one that has begun.
	fresh bool

	// guarded says that there is Authorization and no principal in the key: only a
	// response that says so may be shared (RFC 9111, section 3.5).
	guarded bool

	parent *flight // from inside of which the request comes, if so
}

// maxKey bounds what one flight's key takes. Requests whose key is longer pass.
const maxKey = 8 << 10

// ask returns what is to be known of the request, or false if it is not to be
// collapsed.
func (h *Handler) ask(r *http.Request) (ask, bool) {
	a := ask{req: r}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return a, false
	}
	for _, field := range [...]string{"Range", "If-Range", "Upgrade", "Expect"} {
		if len(r.Header[field]) > 0 {
			return a, false
		}
	}
	if !a.readDirectives() {
		return a, false
	}
	authorized := len(r.Header["Authorization"]) > 0
	id := ""
	if h.principal != nil {
		var ok bool
		if id, ok = h.principal(r); !ok {
			return a, false
		}
		a.guarded = authorized && id == ""
	} else if authorized || len(r.Header["Cookie"]) > 0 || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return a, false
	}
	a.parent, _ = r.Context().Value(insideKey{h}).(*flight)
	a.key = h.appendKey(make([]byte, 0, 256), r, id, authorized)
	a.base = maphash.Bytes(h.seed, a.key)
	return a, len(a.key) <= maxKey
}

// readDirectives applies the Cache-Control of the request (RFC 9111, section 5.2.1),
// and Pragma without it (section 5.4).
func (a *ask) readDirectives() (ok bool) {
	lines := a.req.Header["Cache-Control"]
	if len(lines) == 0 {
		lines = a.req.Header["Pragma"]
	}
	ok = true
	valid := parseDirectives(lines, func(name, _ string, _ bool) {
		switch name {
		case "no-store", "no-cache", "only-if-cached":
			ok = false
		case "max-age", "min-fresh":
			a.fresh = true
		}
	})
	return ok && valid
}

// conditions are the fields by which a request asks for another response to the same
// URL. With equal conditions the response is equal too, also a 304 or 412, so that
// they are a part of the key (RFC 9110, section 13). So is what the client demands of
// caches, for the wrapped handler may be one.
var conditions = [...]string{"Cache-Control", "If-Match", "If-Modified-Since", "If-None-Match", "If-Unmodified-Since", "Pragma"}

// appendKey appends the key of a request. Each part is preceded by its length, so
// that no two lists of parts look alike. Path and RequestURI are both in it, since
// middleware may have rewritten one and not the other.
func (h *Handler) appendKey(b []byte, r *http.Request, id string, authorized bool) []byte {
	scheme := r.URL.Scheme
	if r.TLS != nil {
		scheme = "https"
	}
	flags := byte(0)
	if authorized {
		flags = 1
	}
	b = append(b, flags)
	for _, part := range [...]string{r.Method, strings.ToLower(scheme), strings.ToLower(r.Host), r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RequestURI, id} {
		b = appendPart(b, part)
	}
	for _, name := range conditions {
		b = appendField(b, r.Header[name])
	}
	for _, name := range h.keyHeaders {
		b = appendField(b, r.Header[name])
	}
	return b
}

func appendPart(b []byte, part string) []byte {
	b = binary.AppendUvarint(b, uint64(len(part)))
	return append(b, part...)
}

// appendField appends the number 0 for a field that is not there, and otherwise its
// lines joined: a list in several lines is the same as in one (RFC 9110, section 5.3).
func appendField(b []byte, lines []string) []byte {
	switch len(lines) {
	case 0:
		return append(b, 0)
	case 1:
		return appendPart(append(b, 1), strings.Trim(lines[0], " \t"))
	}
	return appendPart(append(b, 1), joinLines(lines))
}

func joinLines(lines []string) string {
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t")
	}
	return strings.Join(trimmed, ", ")
}

// appendVariant appends to a key the request's values of the fields in vary.
func appendVariant(key []byte, vary []string, header http.Header) []byte {
	for _, name := range vary {
		key = appendPart(key, name)
		key = appendField(key, header[name])
	}
	return key
}

// sameVariant says whether two requests are equal in the fields in vary.
func sameVariant(vary []string, a, b http.Header) bool {
	for _, name := range vary {
		if !bytes.Equal(appendField(nil, a[name]), appendField(nil, b[name])) {
			return false
		}
	}
	return true
}

// insideKey finds in a context the flight of this Handler in which it is.
type insideKey struct{ h *Handler }

// inside says whether the request comes from within f, so that it would wait for
// itself.
func (a *ask) inside(f *flight) bool {
	for p := a.parent; p != nil; p = p.parent {
		if p == f {
			return true
		}
	}
	return false
}
