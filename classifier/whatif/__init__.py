"""What a defence is worth: a log played again into a gateway of stated capacity, behind one defence after the other."""
