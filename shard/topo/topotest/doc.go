// Package topotest is the suite that every [topo.Store] passes. It is for tests.
package topotest
