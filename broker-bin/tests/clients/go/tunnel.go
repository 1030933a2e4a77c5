package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
)

// tunnel takes plain connections at one address and brings them to another by TLS: this version of the client speaks none itself.
func tunnel(listen, target, authority, certificate, key string) {
	pem, err := os.ReadFile(authority)
	must(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		must(fmt.Errorf("%s holds no certificate", authority))
	}
	own, err := tls.LoadX509KeyPair(certificate, key)
	must(err)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}
	listener, err := net.Listen("tcp", listen)
	must(err)
	for {
		client, err := listener.Accept()
		must(err)
		go func() {
			defer client.Close()
			broker, err := tls.Dial("tcp", target, config)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			defer broker.Close()
			go func() {
				_, _ = io.Copy(broker, client)
				_ = broker.CloseWrite()
			}()
			_, _ = io.Copy(client, broker)
		}()
	}
}
