// Package httpcoalesce collapses concurrent equal GET and HEAD requests into one
// execution of an http.Handler, and streams its response to all clients.
package httpcoalesce
