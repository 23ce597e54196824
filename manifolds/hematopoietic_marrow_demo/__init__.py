"""What `manifoldzoo demo` extracts: the hematopoietic recipe for one small study, with nothing left to choose."""
