"""The intercellular-communication manifold: cell types, labels, curated paths and gene programs as tables."""
