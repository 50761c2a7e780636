# add_module(NAME SOURCES a.c ... DEPENDS other ... [LIBRARIES PkgConfig::X ...])
# One static library a top-level folder. DEPENDS repeats the folder's line in LAYERS.
function(add_module name)
    cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
    add_library(${name} STATIC ${arg_SOURCES})
    target_link_libraries(${name} PUBLIC project_options ${arg_DEPENDS} ${arg_LIBRARIES})
endfunction()

# add_tool(NAME SOURCES a.c ... DEPENDS module ...)  one program, as build/<preset>/bin/NAME
function(add_tool name)
    cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
    add_executable(${name} ${arg_SOURCES})
    target_link_libraries(${name} PRIVATE project_options ${arg_DEPENDS} ${arg_LIBRARIES})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
    install(TARGETS ${name} RUNTIME DESTINATION bin)
    if(EXISTS ${PROJECT_SOURCE_DIR}/docs/man/${name}.1.in)
        add_man_page(${name})
    endif()
endfunction()

# add_unit_test(virtio_blk_state MODULE vmm [SLOW] [LABELS kvm] [TIMEOUT 30])
# Builds virtio_blk_state_test.c against one module. Exit code 77 means skipped. SLOW is for what
# takes more than a few seconds: labelled slow instead of unit, and left to tests/run.
function(add_unit_test name)
    if(NOT BUILD_TESTING)
        return()
    endif()
    cmake_parse_arguments(arg "SLOW" "MODULE;TIMEOUT" "LABELS;LIBRARIES" ${ARGN})
    set(label unit)
    if(arg_SLOW)
        set(label slow)
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 60)
    endif()
    if(SANITIZE)
        math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 8") # they slow programs down
    endif()
    get_filename_component(base ${name} NAME)
    add_executable(${base}_test ${name}_test.c)
    target_link_libraries(${base}_test PRIVATE ${arg_MODULE} ${arg_LIBRARIES} PkgConfig::CMOCKA)
    add_test(NAME ${arg_MODULE}/${name} COMMAND ${base}_test)
    set_tests_properties(${arg_MODULE}/${name} PROPERTIES LABELS "${label};${arg_LABELS}"
        TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()

# add_fuzz_target(frame MODULE proto)  builds frame_fuzz.c: with libFuzzer under -DFUZZ=ON, where
# tests/fuzz/run finds it, else as a test that replays the corpus in tests/fuzz/corpus/frame.
function(add_fuzz_target name)
    cmake_parse_arguments(arg "" "MODULE" "" ${ARGN})
    get_filename_component(base ${name} NAME)
    if(FUZZ)
        add_executable(${base}_fuzz ${name}_fuzz.c)
        target_link_options(${base}_fuzz PRIVATE -fsanitize=fuzzer)
        target_link_libraries(${base}_fuzz PRIVATE ${arg_MODULE})
        set_target_properties(${base}_fuzz PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/targets)
    elseif(BUILD_TESTING)
        add_executable(${base}_fuzz ${name}_fuzz.c ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.c)
        target_link_libraries(${base}_fuzz PRIVATE ${arg_MODULE})
        add_test(NAME fuzz/${base} COMMAND ${base}_fuzz ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${base})
        set_tests_properties(fuzz/${base} PROPERTIES LABELS "unit;fuzz" TIMEOUT 60)
    endif()
endfunction()
