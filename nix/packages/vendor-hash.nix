# The modules of go.sum as one hash; scripts/update-vendor-hash writes it.
"sha256-sPkKbOGj9YZwMadz3nWLmn9UYG6pw0cNqr9J9FGQqQE="
