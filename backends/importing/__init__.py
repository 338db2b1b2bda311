"""From a module of PyTorch to Relax: everything is spelled out that TVM's importer lacks or misreads."""
