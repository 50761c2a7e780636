# cmake -DINPUT=file -DHEADER=a/b.h -DOUTPUT=source -DNAME=array -P EmbedBytes.cmake
# A file as a C array NAME, with its length NAME_bytes; HEADER declares both.
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,){16})" "    \\1\n" lines "${bytes}")
file(WRITE ${OUTPUT} "#include \"${HEADER}\"\n\nconst unsigned char ${NAME}[] = {\n${lines}\n};\n"
    "const size_t ${NAME}_bytes = sizeof(${NAME});\n")
