# The modules of go.sum as one hash; scripts/update-vendor-hash writes it.
"sha256-LWfNTernDZ5/71n94MSGXzYKLk/mKXQhvQwSuFBKfg8="
